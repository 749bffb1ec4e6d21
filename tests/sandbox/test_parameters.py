"""The service's own checks of the parameters of ``gpt_image_1_edit``."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from airflow_provider_odirouter.sandbox import Sandbox, parameters

EDIT = "/v1/queue/gpt_image_1_edit"
URL = "https://example.com/a.png"
Edit = Callable[..., httpx.Response]


@pytest.mark.parametrize(
    "accepted",
    [
        {},
        {"prompt": "x" * 32_000},
        {"images": [URL] * 16},
        {"images": [URL], "mask": URL},
        {"n": 10, "size": "1536x1024", "quality": "low", "input_fidelity": "high", "moderation": "low", "user": "u"},
        {"background": "transparent"},
        {"background": "transparent", "output_format": "webp", "output_compression": 0},
        {"output_format": "jpeg", "output_compression": 100},
        {"something_new": {"anything": 1}},
    ],
)
def test_valid_parameters_are_accepted(accepted: dict[str, Any], edit: Edit) -> None:
    assert edit(**accepted).status_code == 200


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ({"prompt": ""}, "prompt: must be a string of 1 to 32000 characters"),
        ({"prompt": "x" * 32_001}, "prompt: must be a string of 1 to 32000 characters"),
        ({"prompt": 3}, "prompt: must be a string of 1 to 32000 characters"),
        ({"images": []}, "images: must be a list of 1 to 16 pictures"),
        ({"images": URL}, "images: must be a list of 1 to 16 pictures"),
        ({"images": [URL] * 17}, "images: must be a list of 1 to 16 pictures"),
        ({"images": [URL, 1]}, "images[1]: must be a URL or base64"),
        ({"images": [URL, ""]}, "images[1]: must be a URL or base64"),
        ({"images": ["ftp://example.com/a.png"]}, "images[0]: is neither a URL nor base64"),
        ({"images": ["data:image/png;base64,AAAA"]}, "images[0]: must be bare base64, without a data: prefix"),
        ({"images": ["AAAA"]}, "images[0]: is not a whole PNG, JPEG or WebP picture"),
        ({"mask": None}, "mask: must be a URL or base64"),
        ({"input_fidelity": "medium"}, "input_fidelity: must be one of high, low"),
        ({"size": "512x512"}, "size: must be one of 1024x1024, 1024x1536, 1536x1024, auto"),
        ({"quality": "best"}, "quality: must be one of low, medium, high, auto"),
        ({"background": "white"}, "background: must be one of transparent, opaque, auto"),
        ({"output_format": "gif"}, "output_format: must be one of png, jpeg, webp"),
        ({"moderation": None}, "moderation: must be one of auto, low"),
        ({"moderation": ["low"]}, "moderation: must be one of auto, low"),
        ({"n": 0}, "n: must be an integer from 1 to 10"),
        ({"n": 11}, "n: must be an integer from 1 to 10"),
        ({"n": True}, "n: must be an integer from 1 to 10"),
        ({"n": "2"}, "n: must be an integer from 1 to 10"),
        ({"user": 5}, "user: must be a string"),
        ({"output_compression": 50}, "output_compression: is only for jpeg and webp"),
        (
            {"output_format": "webp", "output_compression": 101},
            "output_compression: must be an integer from 0 to 100",
        ),
        ({"background": "transparent", "output_format": "jpeg"}, "background: transparent needs png or webp"),
    ],
)
def test_invalid_parameters_are_refused(refused: dict[str, Any], message: str, edit: Edit, sandbox: Sandbox) -> None:
    answer = edit(**refused)
    assert (answer.status_code, answer.json()["error"]["message"]) == (422, message)
    assert sandbox.paid == 0


def test_all_broken_rules_are_named_at_once(client: httpx.Client) -> None:
    message = client.post(EDIT, json={"n": 0, "images": [""]}).json()["error"]["message"]
    assert [part.partition(":")[0] for part in message.split("; ")] == ["prompt", "images[0]", "n"]


@pytest.mark.parametrize("name", ["coffee.png", "rocket.jpg"])
def test_photographs_are_accepted(name: str, edit: Edit, encoded: Callable[[str], str]) -> None:
    assert edit(images=[encoded(name)]).status_code == 200


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("coffee-mask.png", ""),
        ("coffee-mask-no-alpha.png", "mask: has no alpha channel"),
        ("coffee-mask-wrong-size.png", "mask: is 300x200, the image is 600x400"),
    ],
)
def test_a_mask_must_have_alpha_and_the_size_of_its_picture(
    mask: str, message: str, edit: Edit, encoded: Callable[[str], str]
) -> None:
    answer = edit(images=[encoded("coffee.png"), encoded("rocket.jpg")], mask=encoded(mask))
    assert answer.json().get("error", {}).get("message", "") == message


def test_a_mask_must_have_the_format_of_its_picture(edit: Edit, pictured: Callable[..., str]) -> None:
    answer = edit(mask=pictured("webp", "RGBA"))
    assert answer.json()["error"]["message"] == "mask: is WEBP, the image is PNG"


def test_a_mask_for_a_url_is_checked_without_the_picture(edit: Edit, pictured: Callable[..., str]) -> None:
    assert edit(images=[URL], mask=pictured("webp", "RGBA")).status_code == 200
    assert edit(images=[URL], mask=pictured("webp", "RGB")).status_code == 422


@pytest.mark.parametrize(("file_format", "mode"), [("gif", "P"), ("bmp", "RGB"), ("tiff", "RGB")])
def test_other_formats_are_refused(file_format: str, mode: str, edit: Edit, pictured: Callable[..., str]) -> None:
    assert "PNG, JPEG or WebP" in edit(images=[pictured(file_format, mode)]).text


@pytest.mark.parametrize("name", ["coffee.png", "rocket.jpg"])
def test_half_a_picture_is_refused(name: str, edit: Edit, encoded: Callable[[str], str]) -> None:
    data = base64.b64decode(encoded(name))
    half = base64.b64encode(data[: len(data) // 2]).decode()
    assert "is not a whole" in edit(images=[half]).text


def test_a_picture_of_more_than_ten_mebibytes_is_refused(edit: Edit, pictured: Callable[..., str]) -> None:
    picture = base64.b64decode(pictured())
    exact = base64.b64encode(picture.ljust(parameters.MAX_BYTES, b"\0")).decode()
    above = base64.b64encode(picture.ljust(parameters.MAX_BYTES + 1, b"\0")).decode()
    assert edit(images=[exact]).status_code == 200
    assert "more than 10485760" in edit(images=[above]).text


@pytest.mark.parametrize("size", [(8000, 7000), (12000, 12000)])
def test_a_picture_of_too_many_pixels_is_refused(
    size: tuple[int, int], edit: Edit, pictured: Callable[..., str]
) -> None:
    assert edit(images=[pictured("png", "1", size)]).status_code == 422
