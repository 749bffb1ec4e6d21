"""The models: the rules of an edit, the event of a trigger, the manifest of a task."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from airflow_provider_odirouter.errors import InvalidParametersError, Problem, ServiceError
from airflow_provider_odirouter.models import (
    CancelOutcome,
    Ending,
    Failure,
    ImageEdit,
    LandedOutput,
    Manifest,
    OutputFile,
    RequestEvent,
    RequestResult,
    RequestState,
    RequestStatus,
    Submission,
)

MISSING = "which is what a template, str() or pandas writes for a missing value"


class NaTType:
    """Named as the class of pandas' missing times."""

    def __repr__(self) -> str:
        return "NaT"


LEAST = {"prompt": "A blue cup", "images": ["https://example.com/cup.png"]}
EVERYTHING = {
    "prompt": "A blue cup",
    "images": ["https://example.com/cup.png", "/pictures/plate.webp"],
    "mask": "/pictures/mask.png",
    "input_fidelity": "high",
    "n": 10,
    "size": "1024x1536",
    "quality": "medium",
    "output_format": "webp",
    "background": "transparent",
    "output_compression": 0,
    "moderation": "low",
    "user": "user-17",
}


class Lazy(Sequence[Any]):
    """A sequence that is not a list, like Airflow's outputs of mapped tasks."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)


def problems(**values: Any) -> dict[str, str]:
    """Parse the smallest edit with these values, and return the broken rules."""
    with pytest.raises(InvalidParametersError) as caught:
        ImageEdit.parse({**LEAST, **values})
    assert caught.value.endpoint == "gpt_image_1_edit"
    return dict(caught.value.problems)


def broken_rules(values: dict[str, Any]) -> tuple[Problem, ...]:
    with pytest.raises(InvalidParametersError) as caught:
        ImageEdit.parse(values)
    return caught.value.problems


def checked(unknown: Sequence[str], values: dict[str, Any]) -> dict[str, str]:
    """Check values of which some are templates, and return the broken rules."""
    try:
        ImageEdit.check(values, unknown=frozenset(unknown))
    except InvalidParametersError as error:
        return dict(error.problems)
    return {}


# --- What is sent


@pytest.mark.parametrize("parameters", [LEAST, EVERYTHING], ids=["least", "everything"])
def test_an_edit_is_sent_as_it_was_given(parameters: dict[str, Any]) -> None:
    assert ImageEdit.parse(parameters).to_parameters() == parameters


def test_fields_that_are_not_set_are_not_sent() -> None:
    unset = dict.fromkeys(set(EVERYTHING) - set(LEAST))
    assert ImageEdit.parse({**LEAST, **unset}).to_parameters() == LEAST


UNSET = ["", " \n", "None", " None ", "null", "nan", "NaN", "<NA>", float("nan"), Decimal("nan"), NaTType()]


@pytest.mark.parametrize("value", UNSET, ids=repr)
@pytest.mark.parametrize("field", sorted(set(EVERYTHING) - set(LEAST)))
def test_what_stands_for_no_value_is_not_sent(field: str, value: Any) -> None:
    assert ImageEdit.parse({**LEAST, field: value}).to_parameters() == LEAST
    assert checked([], {**LEAST, field: value}) == {}


@pytest.mark.parametrize("text", ["None of them", "nano", "Nan", "none"])
def test_a_text_that_only_resembles_such_a_word_is_sent(text: str) -> None:
    assert ImageEdit.parse({**LEAST, "prompt": text, "user": text}).to_parameters()["user"] == text


def test_the_pictures_of_an_edit_that_breaks_other_rules_are_known() -> None:
    values = {"prompt": "None", "images": "cup.png", "mask": "mask.png", "n": 99}
    assert ImageEdit.pictures(values, broken_rules(values)) == (("cup.png",), "mask.png")
    assert ImageEdit.pictures(values | {"mask": 5}, broken_rules(values | {"mask": 5})) == (("cup.png",), None)
    assert ImageEdit.pictures(values | {"images": ["a", 1]}, broken_rules(values | {"images": ["a", 1]})) == (
        (),
        None,
    )


@pytest.mark.parametrize(
    ("images", "sent"),
    [
        ("cup.png", ["cup.png"]),
        (PurePosixPath("/pictures/cup.png"), ["/pictures/cup.png"]),
        (["cup.png", PurePosixPath("/plate.png")], ["cup.png", "/plate.png"]),
        (("cup.png",), ["cup.png"]),
        (Lazy("cup.png", "plate.png"), ["cup.png", "plate.png"]),
        (iter(["cup.png", "plate.png"]), ["cup.png", "plate.png"]),
        ({"cup.png": 1}.keys(), ["cup.png"]),
        ([str(index) for index in range(16)], [str(index) for index in range(16)]),
    ],
    ids=["one", "one path", "mixed", "tuple", "lazy", "iterator", "view", "sixteen"],
)
def test_pictures_may_be_one_or_any_collection(images: Any, sent: list[str]) -> None:
    assert ImageEdit.parse({**LEAST, "images": images}).to_parameters()["images"] == sent


LANDED = Manifest(
    request_id="mmsu_1",
    endpoint="gpt_image_1_edit",
    outputs=(LandedOutput(path="s3://aws_default@bucket/a-0.png"), LandedOutput(path="/out/a-1.png")),
).to_xcom()
LINKED = Manifest(request_id="mmsu_2", endpoint="e", outputs=(LandedOutput(url="https://x/b.png"),)).to_xcom()
SUBMITTED = Manifest(request_id="mmsu_3", endpoint="gpt_image_1_edit").to_xcom()
WITHOUT_OUTPUTS = (
    "is a manifest without outputs: its task only submitted the request (wait_for_completion=False); use the manifest "
    "of the task that waited for it"
)


@pytest.mark.parametrize(
    ("images", "sent"),
    [
        (LANDED, ["s3://aws_default@bucket/a-0.png", "/out/a-1.png"]),
        ([LANDED], ["s3://aws_default@bucket/a-0.png", "/out/a-1.png"]),
        (LINKED, ["https://x/b.png"]),
        (
            [PurePosixPath("/cup.png"), LANDED, "https://x/c.png", LINKED],
            ["/cup.png", "s3://aws_default@bucket/a-0.png", "/out/a-1.png", "https://x/c.png", "https://x/b.png"],
        ),
        (Lazy(LINKED, LANDED), ["https://x/b.png", "s3://aws_default@bucket/a-0.png", "/out/a-1.png"]),
        ([LANDED] * 8, ["s3://aws_default@bucket/a-0.png", "/out/a-1.png"] * 8),
    ],
    ids=["one", "a list of one", "with links", "mixed", "of mapped tasks", "sixteen in eight"],
)
def test_a_manifest_stands_for_its_outputs(images: Any, sent: list[str]) -> None:
    assert ImageEdit.parse({**LEAST, "images": images}).to_parameters()["images"] == sent
    assert checked([], {**LEAST, "images": images}) == {}


def test_a_manifest_with_one_output_may_be_the_mask() -> None:
    assert ImageEdit.parse({**LEAST, "mask": LINKED}).to_parameters()["mask"] == "https://x/b.png"


def test_pictures_are_counted_when_manifests_are_unpacked() -> None:
    too_many = "holds 17 pictures; the endpoint takes 1 to 16"
    assert problems(images=[*[LANDED] * 8, "cup.png"]) == {"images": too_many}
    assert checked([], {**LEAST, "images": [*[LANDED] * 8, "cup.png"]}) == {"images": too_many}


@pytest.mark.parametrize("check", [problems, lambda **values: checked([], {**LEAST, **values})], ids=["run", "parse"])
def test_a_manifest_without_outputs_says_why_it_has_none(check: Callable[..., dict[str, str]]) -> None:
    assert check(images=SUBMITTED, mask=SUBMITTED) == {"images[0]": WITHOUT_OUTPUTS, "mask": WITHOUT_OUTPUTS}
    assert check(images=["cup.png", LANDED, SUBMITTED]) == {"images[3]": WITHOUT_OUTPUTS}


def test_a_manifest_with_several_outputs_is_not_a_mask() -> None:
    assert problems(mask=LANDED) == {"mask": "is a manifest with 2 outputs; name one of them"}


@pytest.mark.parametrize("outputs", [[{"content_type": "image/png"}], [None], [{"path": None, "url": None}]])
def test_a_manifest_whose_output_has_no_path_is_refused(outputs: list[Any]) -> None:
    manifest = {"request_id": "mmsu_1", "outputs": outputs}
    expected = f"should be a valid string, not {outputs[0]}"
    assert problems(images=[manifest], mask=manifest) == {"images[0]": expected, "mask": expected}


@pytest.mark.parametrize("value", [{"outputs": 5}, {"outputs": "cup.png"}, {"outputs": None}, {"batch": 3}])
def test_another_mapping_is_not_a_manifest(value: Any) -> None:
    assert problems(images=[value]) == {"images[0]": f"should be a valid string, not {value}"}
    assert problems(images=value) == {"images": f"should be a list of pictures, not {value}"}


def test_a_mask_may_be_a_path() -> None:
    assert ImageEdit.parse({**LEAST, "mask": PurePosixPath("/mask.png")}).mask == "/mask.png"


def test_texts_from_templates_become_numbers() -> None:
    edit = ImageEdit.parse({**LEAST, "n": "3", "output_compression": "80", "output_format": "jpeg"})
    assert (edit.n, edit.output_compression) == (3, 80)


def test_numbers_from_native_templates_become_texts() -> None:
    edit = ImageEdit.parse({**LEAST, "prompt": 2027, "user": 17})
    assert (edit.prompt, edit.user) == ("2027", "17")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("input_fidelity", ["high", "low"]),
        ("n", [1, 10]),
        ("size", ["1024x1024", "1024x1536", "1536x1024", "auto"]),
        ("quality", ["low", "medium", "high", "auto"]),
        ("background", ["transparent", "opaque", "auto"]),
        ("output_format", ["png", "jpeg", "webp"]),
        ("moderation", ["auto", "low"]),
    ],
)
def test_every_documented_value_is_accepted(field: str, values: list[Any]) -> None:
    for value in values:
        assert ImageEdit.parse({**LEAST, field: value}).to_parameters() == {**LEAST, field: value}


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
@pytest.mark.parametrize("compression", [0, 100])
def test_compression_is_accepted_with_formats_that_compress(output_format: str, compression: int) -> None:
    parameters = {**LEAST, "output_format": output_format, "output_compression": compression}
    assert ImageEdit.parse(parameters).to_parameters() == parameters


@pytest.mark.parametrize("output_format", ["png", "webp", None])
def test_transparency_is_accepted_with_formats_that_have_it(output_format: str | None) -> None:
    edit = ImageEdit.parse({**LEAST, "background": "transparent", "output_format": output_format})
    assert edit.background == "transparent"


def test_a_prompt_may_have_32000_characters() -> None:
    assert len(ImageEdit.parse({**LEAST, "prompt": "字" * 32_000}).prompt) == 32_000


# --- The rules


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("prompt", None, "is required"),
        ("prompt", "", "is empty"),
        ("prompt", " \n", "is empty"),
        ("prompt", "x" * 32_001, "has 32,001 characters; at most 32,000"),
        ("prompt", True, "should be a valid string, not True"),
        ("prompt", ["x"], "should be a valid string, not ['x']"),
        ("images", None, "is required"),
        ("images", [], "holds 0 pictures; the endpoint takes 1 to 16"),
        ("images", Lazy(), "holds 0 pictures; the endpoint takes 1 to 16"),
        ("images", ["x"] * 17, "holds 17 pictures; the endpoint takes 1 to 16"),
        ("images", iter("x" * 17), "holds 17 pictures; the endpoint takes 1 to 16"),
        ("images", 5, "should be a list of pictures, not 5"),
        ("images", {"url": "x"}, "should be a list of pictures, not {'url': 'x'}"),
        ("images", b"\x89PNG", r"should be a list of pictures, not b'\x89PNG'"),
        ("mask", ["x"], "should be a valid string, not ['x']"),
        ("input_fidelity", "medium", "should be 'high' or 'low', not 'medium'"),
        ("n", 0, "should be greater than or equal to 1, not 0"),
        ("n", 11, "should be less than or equal to 10, not 11"),
        ("n", 2.5, "must be a whole number, not 2.5"),
        ("n", "many", "must be a whole number, not 'many'"),
        ("n", float("inf"), "must be a whole number, not inf"),
        ("n", True, "must be a whole number, not True"),
        ("output_compression", False, "must be a whole number, not False"),
        ("prompt", "None", f"is 'None', {MISSING}"),
        ("prompt", " nan\n", f"is ' nan\\n', {MISSING}"),
        ("prompt", float("nan"), f"is nan, {MISSING}"),
        ("prompt", Decimal("nan"), f"is Decimal('NaN'), {MISSING}"),
        ("prompt", NaTType(), f"is NaT, {MISSING}"),
        ("prompt", float("inf"), "must be a text, not inf"),
        ("user", float("-inf"), "must be a text, not -inf"),
        ("user", True, "should be a valid string, not True"),
        ("images", "", "is empty"),
        ("images", "None", f"is 'None', {MISSING}"),
        ("images", float("nan"), f"is nan, {MISSING}"),
        ("mask", 1, "must be a path or a URL, not 1"),
        ("size", "512x512", "should be '1024x1024', '1024x1536', '1536x1024' or 'auto', not '512x512'"),
        ("quality", "hd", "should be 'low', 'medium', 'high' or 'auto', not 'hd'"),
        ("background", "white", "should be 'transparent', 'opaque' or 'auto', not 'white'"),
        ("output_format", "jpg", "should be 'png', 'jpeg' or 'webp', not 'jpg'"),
        ("output_format", "PNG", "should be 'png', 'jpeg' or 'webp', not 'PNG'"),
        ("output_compression", 50, "works only with output_format 'jpeg' or 'webp'; the default is 'png'"),
        ("moderation", "high", "should be 'auto' or 'low', not 'high'"),
        ("user", ["x"], "should be a valid string, not ['x']"),
        ("promt", "x", "is not a parameter of this endpoint"),
        ("webhook_url", "https://example.com", "is not a parameter of this endpoint"),
        ("size", "x" * 100, f"should be '1024x1024', '1024x1536', '1536x1024' or 'auto', not '{'x' * 56}…"),
    ],
)
def test_a_broken_rule_is_reported_with_its_value(field: str, value: Any, message: str) -> None:
    assert problems(**{field: value}) == {field: message}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("", "is empty"),
        (" ", "is empty"),
        ("None", f"is 'None', {MISSING}"),
        ("<NA>", f"is '<NA>', {MISSING}"),
        (float("nan"), f"is nan, {MISSING}"),
        (1, "must be a path or a URL, not 1"),
        (True, "must be a path or a URL, not True"),
        (2.5, "must be a path or a URL, not 2.5"),
        (None, "should be a valid string, not None"),
        (b"\xff", r"should be a valid string, unable to parse raw data as a unicode string, not b'\xff'"),
        (["x"], "should be a valid string, not ['x']"),
    ],
)
@pytest.mark.parametrize("before", [[], ["a", "b"]], ids=["first", "third"])
def test_an_invalid_picture_is_reported_by_its_index(before: list[str], item: Any, message: str) -> None:
    assert problems(images=[*before, item]) == {f"images[{len(before)}]": message}


def test_a_value_without_a_repr_is_reported_by_its_type() -> None:
    nested: list[Any] = []
    for _ in range(10_000):
        nested = [nested]
    assert problems(prompt=nested, n=10**5000) == {
        "prompt": "should be a valid string, not this list",
        "n": "should be less than or equal to 10, not this int",
    }


@pytest.mark.parametrize("compression", [-1, 101])
def test_compression_has_bounds(compression: int) -> None:
    [field] = problems(output_format="jpeg", output_compression=compression)
    assert field == "output_compression"


def test_png_cannot_be_compressed() -> None:
    expected = {"output_compression": "works only with output_format 'jpeg' or 'webp'; the default is 'png'"}
    assert problems(output_format="png", output_compression=0) == expected


def test_jpeg_cannot_be_transparent() -> None:
    expected = {"background": "'transparent' needs output_format 'png' or 'webp', not 'jpeg'"}
    assert problems(output_format="jpeg", background="transparent") == expected


def test_every_broken_rule_is_reported_at_once() -> None:
    broken = {
        "prompt": " ",
        "images": ["", "good", None],
        "mask": 5,
        "input_fidelity": "x",
        "n": 0,
        "size": "x",
        "quality": "x",
        "output_format": "jpeg",
        "background": "transparent",
        "output_compression": 101,
        "moderation": "x",
        "user": [],
        "stream": True,
    }
    assert set(problems(**broken)) == {
        "prompt",
        "images[0]",
        "images[2]",
        "mask",
        "input_fidelity",
        "n",
        "size",
        "quality",
        "background",
        "output_compression",
        "moderation",
        "user",
        "stream",
    }


def test_rules_between_fields_are_reported_beside_broken_fields() -> None:
    assert set(problems(prompt="", n=99, output_compression=50)) == {"prompt", "n", "output_compression"}


def test_an_invalid_format_is_reported_without_the_compression() -> None:
    assert set(problems(output_format="gif", output_compression=50, background="transparent")) == {"output_format"}


def test_no_parameters_at_all_lack_the_required_ones() -> None:
    with pytest.raises(InvalidParametersError) as caught:
        ImageEdit.parse({})
    assert caught.value.problems == (("prompt", "is required"), ("images", "is required"))


def test_a_name_that_is_not_text_is_reported() -> None:
    with pytest.raises(InvalidParametersError) as caught:
        ImageEdit.parse({**LEAST, 5: "x"})  # type: ignore[dict-item]
    assert [problem.field for problem in caught.value.problems] == ["5"]


def test_a_broken_rule_hides_the_validation_error_behind_it() -> None:
    with pytest.raises(InvalidParametersError) as caught:
        ImageEdit.parse({})
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


# --- What is not known yet


def test_a_template_is_not_checked() -> None:
    assert checked(["prompt", "images", "n"], {"prompt": "{{ x }}", "images": "{{ y }}", "n": "{{ z }}"}) == {}


def test_known_values_are_checked_beside_templates() -> None:
    assert set(checked(["prompt"], {"prompt": "{{ x }}", "images": [], "n": 11})) == {"images", "n"}


def test_a_required_field_may_be_a_template_but_not_missing() -> None:
    assert checked(["prompt"], {"prompt": "{{ x }}"}) == {"images": "is required"}


@pytest.mark.parametrize(("field", "value"), [("output_compression", 50), ("background", "transparent")])
def test_a_rule_about_a_format_that_is_a_template_is_not_checked(field: str, value: Any) -> None:
    assert checked(["output_format"], {**LEAST, "output_format": "{{ x }}", field: value}) == {}


def test_a_rule_is_checked_while_other_fields_are_templates() -> None:
    assert set(checked(["n"], {**LEAST, "n": "{{ x }}", "output_compression": 50})) == {"output_compression"}


def test_a_valid_edit_passes_the_check() -> None:
    assert checked([], EVERYTHING) == {}


# --- Shapes


SHAPES: list[BaseModel] = [
    Submission(request_id="r"),
    Failure(),
    RequestStatus(state=RequestState.IN_QUEUE, raw_status="QUEUED"),
    OutputFile(url="u"),
    RequestResult(outputs=()),
    RequestEvent(ending=Ending.LOST, endpoint="e", request_id="r", at=datetime(2027, 1, 15, tzinfo=UTC)),
    ImageEdit.parse(LEAST),
    LandedOutput(),
    Manifest(request_id="r", endpoint="e"),
]


@pytest.mark.parametrize("model", SHAPES, ids=lambda model: type(model).__name__)
def test_every_model_is_frozen(model: BaseModel) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(model, next(iter(type(model).model_fields)), "x")


EVENT = RequestEvent(
    ending=Ending.FAILED,
    endpoint="gpt_image_1_edit",
    request_id="mmsu_1",
    submitted_at=datetime(2027, 1, 15, 8, 0, 0, tzinfo=UTC),
    at=datetime(2027, 1, 15, 8, 1, 0, tzinfo=UTC),
    inference_seconds=12.34,
    failure=Failure(error_type="INFERENCE_FAILURE", message="No"),
    reason="What",
    vendor="Why",
    cancel=CancelOutcome.UNSUPPORTED,
    cancel_error="No way",
)


def test_an_event_goes_through_the_database_as_plain_json() -> None:
    plain = EVENT.model_dump(mode="json")
    assert plain == {
        "ending": "failed",
        "endpoint": "gpt_image_1_edit",
        "request_id": "mmsu_1",
        "submitted_at": "2027-01-15T08:00:00Z",
        "at": "2027-01-15T08:01:00Z",
        "inference_seconds": 12.34,
        "failure": {"error_type": "INFERENCE_FAILURE", "message": "No"},
        "reason": "What",
        "vendor": "Why",
        "cancel": "UNSUPPORTED",
        "cancel_error": "No way",
    }
    assert RequestEvent.model_validate(json.loads(json.dumps(plain))) == EVENT


@pytest.mark.parametrize("outcome", CancelOutcome)
def test_an_event_keeps_the_outcome_of_a_cancel(outcome: CancelOutcome) -> None:
    event = RequestEvent(ending=Ending.TIMED_OUT, endpoint="e", request_id="r", at=datetime(2027, 1, 15, tzinfo=UTC))
    with_cancel_outcome = event.with_cancel_outcome(outcome)
    assert (with_cancel_outcome.cancel, with_cancel_outcome.cancel_error) == (outcome, None)
    assert event.cancel is None


def test_an_event_keeps_why_a_cancel_failed() -> None:
    event = RequestEvent(ending=Ending.TIMED_OUT, endpoint="e", request_id="r", at=datetime(2027, 1, 15, tzinfo=UTC))
    with_cancel_outcome = event.with_cancel_outcome(ServiceError("It is down (503).", status_code=503))
    assert with_cancel_outcome.cancel is None
    assert with_cancel_outcome.cancel_error is not None
    assert with_cancel_outcome.cancel_error.startswith("It is down (503).")


def test_a_manifest_is_small_and_plain_json() -> None:
    manifest = Manifest(
        request_id="mmsu_1",
        endpoint="gpt_image_1_edit",
        outputs=(
            LandedOutput(
                path="/out/cup-0.png", content_type="image/png", width=1024, height=1536, size_bytes=17, sha256="ab"
            ),
        ),
        submitted_at=datetime(2027, 1, 15, 8, 0, tzinfo=UTC),
        completed_at=datetime(2027, 1, 15, 8, 1, tzinfo=UTC),
        inference_seconds=12.34,
        submits=2,
        cost=0.34,
        metadata={"seed": 7},
    )
    assert manifest.to_xcom() == {
        "request_id": "mmsu_1",
        "endpoint": "gpt_image_1_edit",
        "outputs": [
            {
                "path": "/out/cup-0.png",
                "content_type": "image/png",
                "width": 1024,
                "height": 1536,
                "size_bytes": 17,
                "sha256": "ab",
            }
        ],
        "submitted_at": "2027-01-15T08:00:00Z",
        "completed_at": "2027-01-15T08:01:00Z",
        "inference_seconds": 12.34,
        "submits": 2,
        "cost": 0.34,
        "metadata": {"seed": 7},
    }


def test_an_output_that_was_not_landed_has_a_url_and_no_path() -> None:
    manifest = Manifest(request_id="r", endpoint="e", outputs=(LandedOutput(url="https://cdn.example/0.png"),))
    [output] = manifest.to_xcom()["outputs"]
    assert set(output) == {"url", "content_type", "width", "height", "size_bytes", "sha256"}
    assert output["url"] == "https://cdn.example/0.png"


def test_a_manifest_of_a_submitted_request_has_no_outputs() -> None:
    assert Manifest(request_id="r", endpoint="e").to_xcom() == {
        "request_id": "r",
        "endpoint": "e",
        "outputs": [],
        "submitted_at": None,
        "completed_at": None,
        "inference_seconds": None,
        "submits": None,
        "cost": None,
        "metadata": {},
    }


def test_an_output_that_holds_no_file_says_why() -> None:
    note = "The result holds this file itself."
    manifest = {"outputs": [{"note": note, "content_type": "image/png"}]}
    assert problems(images=manifest) == {"images[0]": f"is an output without a file: {note}"}
    assert problems(mask=manifest) == {"mask": f"is an output without a file: {note}"}


def test_a_problem_shows_no_signature_of_a_url() -> None:
    url = "https://cdn.example.com/a.png?sig=s3cret"
    assert "s3cret" not in str(problems(images=[{"url": url}]))
    assert "s3cret" not in str(problems(n=url))
