"""What cannot be encoded is an error naming the record, and nothing is cut silently."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from labels import VICUNA, shown, two_turns
from tiny import ask, golden, talk

from vlsafe.conversation import ImageRef, Turn, assistant, user
from vlsafe.data.encoding import CUT, CUT_ANSWERS, CUT_TOKENS, Encoding
from vlsafe.errors import ConfigError, DataError


def test_an_empty_answer_names_the_record(encoding: Callable[..., Encoding]) -> None:
    with pytest.raises(DataError) as caught:
        encoding().sample(ask("hi", " \n", identity="r9"))
    assert str(caught.value) == ("file.json, record 'r9': its last answer is empty; give it text or remove the record")


def test_a_record_without_an_answer_names_the_record(encoding: Callable[..., Encoding]) -> None:
    with pytest.raises(DataError) as caught:
        encoding().sample(talk(user("hi")))
    assert str(caught.value) == ("file.json, record 'r1': no token would be supervised; it needs an assistant answer")


@pytest.mark.parametrize(
    "turns",
    [(assistant("yes"),), (user("a"), user("b"), assistant("c")), (Turn("system", ("be safe",)),)],
)
def test_turns_that_do_not_alternate_name_the_record(
    encoding: Callable[..., Encoding], turns: tuple[Turn, ...]
) -> None:
    with pytest.raises(DataError, match=r"file.json, record 'r1': turns must alternate user and assistant"):
        encoding().sample(talk(*turns))


def test_a_long_record_is_an_error_or_cut_at_its_end(encoding: Callable[..., Encoding], picture: ImageRef) -> None:
    record = ask("c?", "red", picture)
    whole = encoding().sample(record)
    length = len(whole.input_ids)
    with pytest.raises(DataError) as caught:
        encoding(max_length=length - 1).sample(record)
    assert str(caught.value) == (
        f"file.json, record 'r1': {length} tokens, more than max_length={length - 1}; raise max_length, "
        "or set too_long: truncate to train without its last 1 tokens, with 0 of 1 answers"
    )
    assert shown(encoding(max_length=length).sample(record)) == shown(whole)
    cut = encoding(max_length=length - 3, too_long="truncate").sample(record)
    assert shown(cut) == (whole.input_ids[:-3].tolist(), whole.labels[:-3].tolist())
    assert cut.supervised == 2
    assert cut.changes == {CUT: 1, CUT_TOKENS: 3}


def test_a_record_whose_last_answer_is_cut_off_is_trained_on_what_is_left(
    encoding: Callable[..., Encoding], picture: ImageRef
) -> None:
    record = two_turns(picture)
    whole = encoding().sample(record)
    length = len(whole.input_ids)
    # the record ends with "no", the end-of-turn token and a line break
    assert encoding(max_length=length - 3, too_long="truncate").sample(record).labels[-1] != -100
    for cut_off in (4, 20):
        cut = encoding(max_length=length - cut_off, too_long="truncate").sample(record)
        assert shown(cut) == (whole.input_ids[:-cut_off].tolist(), whole.labels[:-cut_off].tolist())
        assert cut.supervised == len("a cat") + 1
        assert cut.changes == {CUT: 1, CUT_TOKENS: cut_off, CUT_ANSWERS: 1}


def test_a_record_of_which_no_answer_is_left_is_refused(encoding: Callable[..., Encoding], picture: ImageRef) -> None:
    record = two_turns(picture)
    whole = encoding().sample(record)
    length, first = len(whole.input_ids), int((whole.labels != -100).nonzero()[0])
    assert encoding(max_length=first + 1, too_long="truncate").sample(record).supervised == 1
    with pytest.raises(DataError) as caught:
        encoding(max_length=first, too_long="truncate").sample(record)
    assert str(caught.value) == (
        f"file.json, record 'r1': {length} tokens, of which max_length={first} would cut all that is supervised "
        f"(its last {length - first} tokens, with 2 of 2 answers); raise max_length, or remove the record"
    )
    with pytest.raises(DataError, match=r"cut all that is supervised .* with 1 of 1 answers"):
        encoding(max_length=length - 4, too_long="truncate", supervise="last").sample(record)


def test_an_answer_without_text_before_the_last_is_read_but_not_trained(
    encoding: Callable[..., Encoding], picture: ImageRef
) -> None:
    record = talk(user(picture, "what?"), assistant(""), user("and?"), assistant("no"))
    assert shown(encoding("vicuna_v1").sample(record)) == golden(
        f"{VICUNA}USER: <image>\nwhat? ASSISTANT:USER: and? ASSISTANT:[[ no</s>]]"
    )
    assert shown(encoding().sample(record)) == golden(
        "<|im_start|>user\n<image>\nwhat?<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
        "<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\n[[no<|im_end|>]]\n"
    )


def test_truncation_never_cuts_a_picture(encoding: Callable[..., Encoding], picture: ImageRef) -> None:
    record = ask("c?", "red", picture)
    for length in (1, 6, 7, 9):  # the picture's four tokens are the 7th to the 10th
        with pytest.raises(DataError, match=f"record 'r1': .*max_length={length} would cut a picture; raise"):
            encoding(max_length=length, too_long="truncate").sample(record)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}{{ m['content'][0]['text'] | upper }}</s>{% endfor %}", "rewrites assistant answers"),
        ("{% for m in messages %}{{ m['content'][0]['text'] }}\n{% endfor %}", "puts no end-of-turn token after"),
        ("{% for m in messages %}{{ m['content'][0]['text'] * 2 }}</s>{% endfor %}", "repeats or drops"),
        ("{{ messages[0]['content'][0]['text'] }}</s>", "repeats or drops"),
    ],
)
def test_a_template_whose_answers_cannot_be_found_is_refused(
    encoding: Callable[..., Encoding], template: str, words: str
) -> None:
    made = encoding()
    made.processor.chat_template = template
    with pytest.raises(ConfigError, match=words):
        made.sample(ask("hi", "yes"))


def test_a_template_that_drops_pictures_is_refused(encoding: Callable[..., Encoding], picture: ImageRef) -> None:
    made = encoding()
    made.processor.chat_template = (
        "{% for m in messages %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}</s>{% endfor %}"
    )
    with pytest.raises(DataError, match=r"record 'r1': the template shows 0 pictures, the record has 1"):
        made.sample(ask("hi", "yes", picture))


def test_a_template_that_trims_answers_still_labels_them(encoding: Callable[..., Encoding]) -> None:
    made = encoding()
    made.processor.chat_template = "{% for m in messages %}{{ m['content'][0]['text'] | trim }}</s>{% endfor %}"
    assert shown(made.sample(ask("hi", " yes "))) == golden("hi</s>[[yes</s>]]")
