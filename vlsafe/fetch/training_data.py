"""Data to train on: VLGuard, LLaVA's instruction mixture with its pictures, and text instructions."""

from __future__ import annotations

from vlsafe.fetch.asset import Asset, Part


def _pictures(name: str, where: str, licence: str, note: str, *parts: Part, place: str = "") -> Asset:
    return Asset(name=name, kind="url", where=where, licence=licence, note=note, parts=parts, place=place)


ASSETS = (
    Asset(
        name="vlguard",
        kind="hub-dataset",
        where="ys-zong/VLGuard",
        licence="MIT as reported; pictures have the terms of their sources",
        note="2,000 train and 1,000 test pictures with instructions; read it as vlguard:DIR#train",
        parts=(Part("train.json"), Part("test.json"), Part("train.zip"), Part("test.zip"), Part("*.md")),
        gated="Agree to research use and to share your contact information on its page.",
    ),
    _pictures(
        "vlguard-rivals",
        "https://github.com/ys-zong/VLGuard",
        "none stated; text by GPT-4V",
        "GPT-4V's answers to VLGuard's 558 safe_safe test instructions, to compare with",
        Part(
            "https://raw.githubusercontent.com/ys-zong/VLGuard/a2f85c90e10345dc5e7eceecadd89c1ed982d04f/data/gpt4_safe_safes.json",
            "gpt4_safe_safes.json",
            "60429462f55b72ff1b06b0f648fc307ed287ee45d07148bcaf64dcbdba0d8a44",
        ),
    ),
    Asset(
        name="llava-665k",
        kind="hub-dataset",
        where="liuhaotian/LLaVA-Instruct-150K",
        licence="CC BY 4.0; answers by GPT-4 under OpenAI's terms",
        note="llava_v1_5_mix665k.json, 1 GB; pictures: coco-train2017, gqa-images, textvqa-images, visual-genome, "
        "which come into its folder; OCR-VQA's come only by the script that LLaVA's README links: put them, as .jpg, "
        "into its folder ocr_vqa/images",
        shared=True,
        parts=(Part("llava_v1_5_mix665k.json"), Part("README.md")),
        revision="011f884bcf152693aca1d531d067f31e748bea02",
    ),
    Asset(
        name="llava-pretrain",
        kind="hub-dataset",
        where="liuhaotian/LLaVA-Pretrain",
        licence="as its sources (LAION, CC, SBU)",
        note="558k captions to align a projector; 25 GB with pictures",
    ),
    _pictures(
        "coco-train2017",
        "https://cocodataset.org",
        "Flickr terms",
        "for llava-665k; 18 GB",
        Part("http://images.cocodataset.org/zips/train2017.zip", unpack=True),
        place="llava-665k/coco",
    ),
    _pictures(
        "gqa-images",
        "https://cs.stanford.edu/people/dorarad/gqa/",
        "CC BY 4.0",
        "for llava-665k; 20 GB",
        Part("https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip", unpack=True),
        place="llava-665k/gqa",
    ),
    _pictures(
        "textvqa-images",
        "https://textvqa.org/dataset/",
        "CC BY 4.0",
        "for llava-665k and textvqa-val; 7 GB",
        Part("https://dl.fbaipublicfiles.com/textvqa/images/train_val_images.zip", unpack=True),
        place="llava-665k/textvqa",
    ),
    _pictures(
        "visual-genome",
        "https://homes.cs.washington.edu/~ranjay/visualgenome/",
        "CC BY 4.0",
        "for llava-665k; 15 GB",
        Part("https://cs.stanford.edu/people/rak248/VG_100K_2/images.zip", unpack=True),
        Part("https://cs.stanford.edu/people/rak248/VG_100K_2/images2.zip", unpack=True),
        place="llava-665k/vg",
    ),
    _pictures(
        "alpaca",
        "https://github.com/tatsu-lab/stanford_alpaca",
        "CC BY-NC 4.0",
        "52,002 text instructions",
        Part("https://raw.githubusercontent.com/tatsu-lab/stanford_alpaca/main/alpaca_data.json", "alpaca_data.json"),
    ),
)
