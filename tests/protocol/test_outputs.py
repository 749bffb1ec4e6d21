"""Outputs are found in every shape that a result has; what is not found is described."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_odirouter.errors import NoOutputError, RejectedError, ServiceError
from airflow_provider_odirouter.models import RequestResult
from airflow_provider_odirouter.protocol import pause_before_repeat
from airflow_provider_odirouter.protocol.answers import read_result
from tests.protocol.exchange import RESULT, answer

LINK = "https://cdn.example/0.png"


def found(body: dict[str, Any]) -> list[tuple[str | None, str]]:
    result = read_result(RESULT, answer(200, body))
    assert isinstance(result, RequestResult)
    return [(output.type, output.url) for output in result.outputs]


def unread(body: dict[str, Any]) -> str:
    with pytest.raises(NoOutputError) as caught:
        read_result(RESULT, answer(200, body))
    return caught.value.what


@pytest.mark.parametrize(
    ("body", "type_"),
    [
        ({"images": [{"url": LINK}], "seed": 7, "has_nsfw_concepts": [False]}, "image"),
        ({"images": [LINK]}, "image"),
        ({"images": [{"type": "file", "url": LINK}]}, "file"),
        ({"image": {"url": LINK}}, "image"),
        ({"image": LINK}, "image"),
        ({"video": {"url": LINK}}, "video"),
        ({"videos": [{"url": LINK}]}, "video"),
        ({"audio": {"url": LINK}}, "audio"),
        ({"audio_file": {"url": LINK}}, "audio"),
        ({"audio_url": LINK}, "audio"),
        ({"file": {"url": LINK}}, None),
        ({"output": LINK}, None),
        ({"output": [LINK]}, None),
        ({"output": {"images": [{"url": LINK}]}}, "image"),
        ({"outputs": [LINK]}, None),
        ({"outputs": [{"image": {"url": LINK}}]}, "image"),
        ({"output": [{"content": [{"type": "image_url", "image_url": {"url": LINK}}]}]}, "image"),
        ({"data": [{"url": LINK, "revised_prompt": "A blue cup"}]}, None),
        ({"data": {"images": [{"url": LINK}]}}, "image"),
        ({"result": {"video": {"url": LINK}}}, "video"),
    ],
    ids=str,
)
def test_other_shapes_are_read(body: dict[str, Any], type_: str | None) -> None:
    assert found(body) == [(type_, LINK)]


def test_the_other_fields_of_a_file_are_kept() -> None:
    record = {"url": LINK, "content_type": "image/webp", "width": 1, "height": 2, "file_name": "a", "file_size": 3}
    result = read_result(RESULT, answer(200, {"images": [record]}))
    assert isinstance(result, RequestResult)
    assert result.outputs[0].model_dump() == {"type": "image", **record}


@pytest.mark.parametrize("field", ["b64_json", "base64", "file_data"])
def test_a_file_in_base64_gets_a_data_url(field: str) -> None:
    assert found({"data": [{field: "iVBORw0K", "revised_prompt": "x"}]}) == [(None, "data:;base64,iVBORw0K")]
    record = {field: "iVBORw0K", "content_type": "image/png"}
    assert found({"images": [record]}) == [("image", "data:image/png;base64,iVBORw0K")]
    assert found({"images": [{field: "data:image/png;base64,iVBO"}]}) == [("image", "data:image/png;base64,iVBO")]


def test_base64_may_stand_where_a_link_could() -> None:
    text = "iVBORw0K" * 20
    assert found({"images": [text, LINK]}) == [("image", f"data:;base64,{text}"), ("image", LINK)]


def test_the_base64_of_a_file_is_not_kept_beside_its_url() -> None:
    result = read_result(RESULT, answer(200, {"data": [{"b64_json": "iVBORw0K"}]}))
    assert isinstance(result, RequestResult)
    assert result.outputs[0].model_extra == {}


@pytest.mark.parametrize(
    ("link", "url"),
    [
        ("/files/0.png?a=1", "https://odirouter.ai/files/0.png?a=1"),
        ("files/0.png", "https://odirouter.ai/model/files/0.png"),
        ("../0.png", "https://odirouter.ai/0.png"),
        ("//cdn.example/0.png", "https://cdn.example/0.png"),
        (" https://cdn.example/0.png\n", LINK),
        ("data:image/png;base64,iVBO", "data:image/png;base64,iVBO"),
        ("file:///etc/passwd", "file:///etc/passwd"),
        ("//[bad/0.png", "//[bad/0.png"),
    ],
)
def test_relative_links_begin_at_the_base_url(link: str, url: str) -> None:
    assert found({"outputs": [{"url": link}]}) == [(None, url)]


def test_the_documented_shape_wins_over_an_input_that_is_repeated() -> None:
    body = {"image": "https://input.example/a.png", "outputs": [{"url": LINK}], "images": ["https://input.example/b"]}
    assert found(body) == [(None, LINK)]


@pytest.mark.parametrize(
    "body",
    [{"images": []}, {"image": None}, {"image": "blue"}, {"data": None}, {"video": {"url": " "}}, {"images": ["a b"]}],
    ids=str,
)
def test_what_is_no_file_is_not_read(body: dict[str, Any]) -> None:
    assert unread(body) == f"The result of gpt_image_1_edit names no file; its keys are {', '.join(body)}."


def test_a_result_that_is_too_deep_is_not_read() -> None:
    body: dict[str, Any] = {"images": [LINK]}
    for _ in range(400):
        body = {"data": body}
    assert unread(body) == "The result of gpt_image_1_edit names no file; its keys are data."


class TestUnread:
    def test_links_are_quoted_without_what_gives_access(self) -> None:
        body = {
            "meshes": [{"href": "https://user:word@cdn.example/a.glb?signature=secret#part"}],
            "thumb": "data:image/png;base64," + "A" * 10_000,
        }
        assert unread(body) == (
            "The result of gpt_image_1_edit names no file; its keys are meshes, thumb. It has links that are not read: "
            "meshes[0].href: https://***@cdn.example/a.glb?***, thumb: data:image/png;base64,… (10,022 characters)."
        )

    def test_keys_and_links_are_bounded(self) -> None:
        body = {f"key{number:03}\n": f"https://cdn.example/{'x' * 5000}" for number in range(200)}
        what = unread(body)
        assert len(what) < 1200
        assert what.isprintable()
        assert what.endswith(", ….")
        assert what.count("https://") == 5

    def test_a_link_that_cannot_be_parsed_is_quoted(self) -> None:
        assert unread({"a": "https://[bad/x?secret"}).endswith("a: https://[bad/x?***.")


class TestNotYet:
    @pytest.mark.parametrize(
        "body",
        [
            {"detail": "Request is still in progress"},
            {"error": {"code": "NOT_READY", "message": "The result is not ready."}},
            {"message": "request not yet completed"},
            {"status": "IN_PROGRESS", "request_id": "mmsu_1"},
            {"detail": "in_queue"},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("status_code", [400, 409, 422])
    def test_a_refusal_that_says_so_is_repeated_like_a_404(self, body: dict[str, Any], status_code: int) -> None:
        with pytest.raises(ServiceError, match=rf"have the result of .* yet \({status_code}\)") as caught:
            read_result(RESULT, answer(status_code, body))
        assert (caught.value.retry_helps, caught.value.request_id) == (True, "mmsu_0001")
        assert pause_before_repeat(RESULT, caught.value, attempt=1, waited=200, random=0) is not None

    @pytest.mark.parametrize(
        "body",
        [
            {"detail": "size: not a size"},
            {"status": "COMPLETED", "error": "Blocked"},
            {"status": "COMPLETED", "error": "The progress is lost"},
            {"detail": "The picture could not be processed"},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("status_code", [400, 422])
    def test_another_refusal_is_none(self, body: dict[str, Any], status_code: int) -> None:
        with pytest.raises(RejectedError):
            read_result(RESULT, answer(status_code, body))
