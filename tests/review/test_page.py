"""The page of a review: what it shows, how large it is, and that no text of a user's has a meaning in it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_provider_odirouter.addresses import images_tab, instance_address
from airflow_provider_odirouter.models import BatchItem, LandedOutput
from airflow_provider_odirouter.review.input import ReviewedEdit
from airflow_provider_odirouter.review.page import MAX_BYTES, Addresses, code, make_body, switch_names

DIGEST = "ab" * 32
ADDRESSES = Addresses("odirouter/dags/d/runs/r/tasks/t/-1", "dags/d/runs/r/tasks/t/plugin/images")
ATTACKS = [
    "![x](https://evil/)",
    "<script>alert(1)</script>",
    "](https://evil/)",
    "`](https://evil/)`",
    "``` ![x](https://evil/) ```",
    "`" * 150,
    "a | b\n| --- | --- |\n| ![x](https://evil/) |",
    "\n\n# Heading\n\n[x]: https://evil/",
    "https://evil/ www.evil.example a@evil.example",
    "\u202egnp.exe\u2028![x](//evil/)\x00",
    "&#96;&lt;b&gt; \\` \\",
    "{{ 7 * 7 }}",
]


def edit(number: int = 1, prompt: str = "Blue", name: str = "cup.png", outputs: int = 1, **fields: Any) -> ReviewedEdit:
    landed = tuple(LandedOutput(path=f"/out/{number}-{index}.png", sha256=DIGEST) for index in range(outputs))
    values: dict[str, Any] = {"outputs": landed, "sha256": {"/in/cup.png": DIGEST}, **fields}
    item = BatchItem(number=number, name=name, edit={"prompt": prompt, "images": ["/in/cup.png"]}, **values)
    return ReviewedEdit({"outputs": [one.model_dump() for one in item.outputs]}, item)


def body(*edits: ReviewedEdit, preselect: bool = True, addresses: Addresses = ADDRESSES) -> str:
    return make_body(edits, addresses, preselect=preselect)


def outside_of_code(text: str) -> str:
    """What of Markdown is not in a code span, as CommonMark finds them."""
    return re.sub(r"(?<!`)(`+)(?!`)(.*?[^`])\1(?!`)", "CODE", text)


def targets(text: str) -> list[str]:
    return re.findall(r"\]\(([^)]*)\)", outside_of_code(text))


def test_the_input_stands_beside_each_output_which_has_the_number_of_its_switch() -> None:
    text = body(edit(outputs=2))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert "images/0/small?sha256=abababababab" in rows[2]
    assert "**Keep 1**" in rows[2]
    assert "outputs/0/small?sha256=abababababab" in rows[2]
    assert "outputs/0/whole?sha256=abababababab" in rows[2]
    assert "**Keep 2**" in rows[3]
    assert list(switch_names([edit(outputs=2)]).items()) == [
        ("keep_1", "Keep 1: cup.png"),
        ("keep_2", "Keep 2: cup.png"),
    ]


def test_the_page_says_what_the_switches_mean_and_leads_to_the_images_tab() -> None:
    assert "Switch off each that must not be used" in body(edit())
    assert "Switch on each that may be used" in body(edit(), preselect=False)
    assert f"[Images]({ADDRESSES.tab})" in body(edit())


def test_a_prompt_of_all_edits_is_shown_once() -> None:
    assert body(edit(1), edit(2)).count("`Blue`") == 1
    assert "Prompt: `Red`" in body(edit(1), edit(2, prompt="Red"))


def test_a_long_prompt_is_cut() -> None:
    assert f"`{'x' * 199}…`" in body(edit(prompt="x" * 32_000))


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_text_of_a_user_has_a_meaning(attack: str) -> None:
    text = body(edit(prompt=attack, name=attack), edit(2, prompt="other"))
    plain = body(edit(prompt="p", name="n"), edit(2, prompt="other"))
    assert outside_of_code(text) == outside_of_code(plain)
    assert all(target.startswith(("odirouter/", "dags/")) for target in targets(text))
    assert not re.search("[\u202a-\u202e\u2028\x00]", text)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_text_is_one_code_span_whatever_it_holds(attack: str) -> None:
    assert outside_of_code(f"a {code(attack, 200)} b") == "a CODE b"
    assert "\n" not in code(attack, 200)


def linked(url: str) -> ReviewedEdit:
    item = edit().item.model_copy(update={"outputs": (LandedOutput(url=url),)})
    return ReviewedEdit({"outputs": [{"url": url}]}, item)


def test_a_link_of_the_vendor_is_a_link_that_nothing_breaks_out_of() -> None:
    text = body(linked("https://cdn.example/a.png)|![x](https://evil/ <b>`"))
    assert "lies behind OdiRouter's link, which expires" in text
    [link] = [target for target in targets(text) if target.startswith("https://cdn")]
    assert link == "https://cdn.example/a.png%29%7C!%5Bx%5D%28https://evil/%20%3Cb%3E%60"
    assert "![Output" not in text


@pytest.mark.parametrize("character", ["x", "é", "漢", "🎨", "`"])
@pytest.mark.parametrize("ids", ["edit", "é" * 250, "x" * 250])
@pytest.mark.parametrize("per_edit", [1, 10])
def test_a_hundred_pictures_fit_whatever_their_texts_and_the_ids_are(character: str, ids: str, per_edit: int) -> None:
    edits = [
        edit(number, prompt=f"{number} {character * 32_000}", name=character * 120, outputs=per_edit)
        for number in range(1, 100 // per_edit + 1)
    ]
    instance = f"odirouter{instance_address(ids, 'manual__2026-11-29T06:28:27+00:00', ids, 123)}"
    text = body(*edits, addresses=Addresses(instance, images_tab(ids, "manual", ids, 123)))
    assert len(text.encode()) <= MAX_BYTES < 2**16
    for number in range(1, 101):
        assert f"**Keep {number}**" in text
    # Where each address has 800 bytes, the pictures are in the Images tab alone.
    assert text.count("/small?sha256=") >= 100 or (len(ids) == 250 and "the *Images* tab shows all" in text)


def test_of_usual_names_and_prompts_all_pictures_are_there_also_of_a_hundred_edits() -> None:
    instance = f"odirouter{instance_address('shop', 'scheduled__2026-11-29T00:00:00+00:00', 'review', -1)}"
    edits = [edit(number, prompt=f"Product {number} on a white background") for number in range(1, 101)]
    text = body(*edits, addresses=Addresses(instance, "tab"))
    assert text.count("/outputs/0/small?") == text.count("/images/0/small?") == 100
