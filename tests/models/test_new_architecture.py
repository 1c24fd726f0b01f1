"""docs/new_architecture.md: its very code is built, trained, asked and exported; and what a subclass lacks is told."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from fitting import FROZEN, FULL, LORA, changed, data, files, tensors, trainer
from tiny import draw, talk

from vlsafe import Backbone, ComposedVLLM, PretrainedVLLM, SafetyFineTuning
from vlsafe.answering import Decoding
from vlsafe.conversation import user
from vlsafe.errors import ConfigError
from vlsafe.models.components import Components
from vlsafe.models.export import export_model
from vlsafe.models.responder import ModelResponder

PAGE = Path(__file__).parents[2] / "docs" / "new_architecture.md"


def written() -> str:
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return block


@pytest.fixture(scope="module")
def family() -> Iterator[ModuleType]:
    module = ModuleType("patchwork")
    sys.modules["patchwork"] = module
    exec(compile(written(), "new_architecture.md", "exec"), module.__dict__)
    yield module
    del sys.modules["patchwork"]


@pytest.fixture
def backbone(family: ModuleType, tokenizer: Path) -> Backbone:
    torch.manual_seed(0)
    return family.Patchwork(str(tokenizer))


def test_the_family_is_written_in_under_60_lines_of_code() -> None:
    lines = [line for line in written().splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(lines) < 60


@pytest.mark.parametrize(
    "components", [Components(FROZEN, FULL, LORA), Components(FULL, FULL, FULL)], ids=["lora", "full"]
)
def test_two_steps_move_what_the_table_names(components: Components, backbone: Backbone, tmp_path: Path) -> None:
    tuned = SafetyFineTuning(backbone, components, warmup_ratio=0.0, schedule="constant")
    tuned.configure_model()
    before = tensors(tuned)
    made = trainer(tmp_path, max_steps=2)
    made.fit(tuned, datamodule=data(files(tmp_path)))
    assert made.global_step == 2
    named = {name.removeprefix("model.") for name, p in tuned.named_parameters() if p.requires_grad}
    assert changed(before, tensors(tuned)) == named
    sees = any("vision" in name for name in named)
    assert sees == (components.vision.train == "full") and any("projector" in name for name in named)


def test_its_answers_in_a_batch_are_those_alone(backbone: Backbone, tmp_path: Path) -> None:
    prompts = [
        talk(user(draw(tmp_path), "a?")),
        talk(user("bcd")),
        talk(user(draw(tmp_path, "b.png", "blue"), "what is it?")),
    ]
    model = backbone.load_model().eval()
    together = dict(ModelResponder(model, backbone, 3).respond(prompts, Decoding(6)))
    alone = dict(ModelResponder(model, backbone, 1).respond(prompts, Decoding(6)))
    assert [together[i].text for i in range(3)] == [alone[i].text for i in range(3)]
    assert [together[i].error for i in range(3)] == ["", "", ""] and together[0].n_tokens > 0


def test_its_export_loads_again_bit_by_bit(backbone: Backbone, tmp_path: Path) -> None:
    tuned = SafetyFineTuning(backbone, Components(FROZEN, FULL, LORA))
    tuned.configure_model()
    out = export_model(tuned, tmp_path / "model", "")
    again = PretrainedVLLM(str(out), dtype="float32").load_model()
    assert tuned.model is not None
    assert all(torch.equal(again.state_dict()[name], t) for name, t in tuned.model.state_dict().items())


def test_what_a_subclass_lacks_is_told_when_it_is_built() -> None:
    class Half(Backbone):
        def load_model(self, path: str) -> None:  # type: ignore[override]
            raise AssertionError("nothing is loaded")

    with pytest.raises(ConfigError) as caught:
        Half()  # type: ignore[abstract]
    words = str(caught.value)
    assert words.startswith(
        "Half is not a whole Backbone:\n  - it must have load_processor(self) -> ProcessorMixin: The "
    )
    assert "it must have modules_of(self, model: PreTrainedModel)" in words
    assert "load_model takes (self, path: 'str') -> 'None', but is called with (self)" in words
    assert (
        "It may override, but need not: with_blank_image, blank_features" in words
        and "docs/new_architecture.md" in words
    )


def test_an_init_that_forgets_its_base_is_told() -> None:
    class Forgetful(ComposedVLLM):
        def __init__(self) -> None:
            self.note = "no super().__init__"

    with pytest.raises(ConfigError, match=r"Forgetful.__init__ does not call super\(\).__init__\(...\)"):
        Forgetful()


def test_the_page_names_every_method_that_may_be_overridden() -> None:
    methods = [n for n, part in vars(Backbone).items() if callable(part) and not n.startswith("_")]
    assert [name for name in methods if f"| `{name}(" not in PAGE.read_text(encoding="utf-8")] == []
