"""What ``delayed-vlm plan`` computes: memory by kind, the largest memory, lower bounds of times."""

import json
import shutil
from functools import partial

import pytest

from delayed_vlm_ros.errors import ConfigurationError, ModelNotFoundError, UnsupportedModelError
from delayed_vlm_ros.inference.local.budget import cache_bytes
from delayed_vlm_ros.inference.local.fit import plan_fit
from delayed_vlm_ros.inference.local.gpus import GPUS, find_gpu
from delayed_vlm_ros.inference.local.memory_plan import plan_memory
from delayed_vlm_ros.inference.local.models.published import PUBLISHED_MODELS
from delayed_vlm_ros.inference.local.models.sizes import ELEMENT_BYTES, sizes_of
from delayed_vlm_ros.inference.local.time_plan import plan_times, weight_parts
from delayed_vlm_ros.resources import data_folder

QWEN = "Qwen/Qwen2.5-VL-3B-Instruct"


def times(model, gpu, *, pairs=20, pair_tokens=256):
    sizes = sizes_of(model)
    weights = weight_parts(
        sizes.config, sizes.parameters, sizes.vision_parameters, ELEMENT_BYTES, is_tied=sizes.is_tied
    )
    return plan_times(
        sizes.config, weights, GPUS[gpu], element_bytes=ELEMENT_BYTES, pairs=pairs, pair_tokens=pair_tokens
    )


def fit(model=QWEN, *, frames=40, gpu_gb=12.0, is_shared=False, **options):
    gpu_bytes = int(gpu_gb * 10**9)
    return plan_fit(
        sizes_of(model), frames=frames, max_pixels=200_704, gpu_bytes=gpu_bytes, is_shared=is_shared, **options
    )


@pytest.mark.heavy
@pytest.mark.parametrize("name", PUBLISHED_MODELS)
def test_sizes_of_a_published_model_are_those_of_the_transformers_model(name):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    # given
    published = PUBLISHED_MODELS[name]
    config = transformers.AutoConfig.for_model(**published.config)
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(config)

    # then
    counts = {name: weight.numel() for name, weight in model.named_parameters()}  # yields tied parameters once
    assert published.parameters == sum(counts.values())
    assert published.vision_parameters == sum(count for name, count in counts.items() if "visual." in name)
    assert cache_bytes(published.config, 2) == cache_bytes(config.to_dict(), 2)
    vision = config.to_dict()["vision_config"]
    assert published.factor == vision["patch_size"] * vision["spatial_merge_size"]
    sizes = {"parameters": 10**9, "element_bytes": 2, "frames": 40, "frame_pixels": 200_704, "factor": published.factor}
    assert plan_memory(published.config, **sizes) == plan_memory(config.to_dict(), **sizes)


@pytest.mark.parametrize("name", ["qwen2.5-vl-3b", "Qwen2.5-VL-3B-Instruct", QWEN, " qwen/qwen2.5-vl-3B "])
def test_published_model_is_found_by_short_names(name):
    assert sizes_of(name).name == QWEN


def test_unknown_model_is_refused_with_the_known_ones():
    with pytest.raises(ModelNotFoundError, match=r"'Qwen9-VL'.*known without files: .*Qwen/Qwen2-VL-2B-Instruct"):
        sizes_of("Qwen9-VL")


def test_sizes_of_a_checkpoint_come_from_its_files(tmp_path):
    # given
    folder = tmp_path / "model"
    shutil.copytree(data_folder("demo", "tiny_scene"), folder)
    # when
    sizes = sizes_of(str(folder))
    # then
    assert (sizes.name, sizes.parameters, sizes.is_tied) == (str(folder), 1_732_032, True)
    assert 0 < sizes.vision_parameters < sizes.parameters
    only = sizes.checkpoint.only_size
    assert sizes.frame_pixels(10**6) == only.height * only.width


def test_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"has no config\.json") as refused:
        sizes_of(str(tmp_path))
    assert "known without files" not in str(refused.value)


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ("vision_config", "depth"),
        ("vision_config", "hidden_size"),
        ("vision_config", "intermediate_size"),
        ("text_config", "hidden_size"),
        ("text_config", "num_attention_heads"),
        ("text_config", "vocab_size"),
    ],
)
def test_config_without_a_size_is_refused(tmp_path, section, field):
    # given
    folder = tmp_path / "model"
    shutil.copytree(data_folder("demo", "tiny_scene"), folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config[section][field]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    # then
    plan = fit if section == "text_config" else partial(times, gpu="l4")
    with pytest.raises(UnsupportedModelError, match="lacks"):
        plan(str(folder))


def test_peak_is_the_sum_of_its_kinds():
    plan = fit("qwen3.5-4b").plan
    assert plan.states > 0
    kinds = plan.weights, plan.features, plan.kv, plan.states, plan.spare_kv, plan.working
    assert plan.peak == sum(kinds) + 10**9
    assert plan.kept == plan.features + plan.kv + plan.states


@pytest.mark.parametrize("model", ["qwen2.5-vl-3b", "qwen3.5-2b"])
def test_largest_memory_fits_and_one_pair_more_does_not(model):
    largest = fit(model).largest_frames
    assert largest >= 2
    assert fit(model, frames=largest).fits
    assert not fit(model, frames=largest + 2).fits
    assert not fit(model).is_context_limit


def test_context_limits_the_memory_on_a_large_gpu():
    # when
    found = fit("qwen2-vl-2b", gpu_gb=141, frames=400)
    # then
    assert found.is_context_limit
    assert found.exceeds_context
    largest = fit("qwen2-vl-2b", gpu_gb=141, frames=found.largest_frames)
    assert largest.fits
    assert largest.prompt_tokens <= largest.context_tokens == 32_768 < largest.prompt_tokens + 256


def test_no_pair_fits_a_gpu_that_is_smaller_than_the_weights():
    found = fit(gpu_gb=4)
    assert not found.fits
    assert found.largest_frames == 0


def test_shared_memory_leaves_a_quarter_and_counts_images():
    apart, shared = fit(), fit(is_shared=True)
    assert apart.available == 12 * 10**9
    assert shared.available == 9 * 10**9
    assert shared.needed == apart.needed + apart.plan.images


def test_each_camera_needs_features_and_cache_of_its_own():
    one, two = fit().plan, fit(cameras=2).plan
    assert (two.features, two.kv, two.weights) == (2 * one.features, 2 * one.kv, one.weights)


@pytest.mark.parametrize("model", PUBLISHED_MODELS)
@pytest.mark.parametrize("gpu", ["orin-nx-16", "rtx-4090", "h200"])
def test_times_are_in_the_order_of_their_work(model, gpu):
    found = times(model, gpu)
    assert found.first_question > found.new_pair > found.next_question > 0


def test_a_token_costs_at_least_the_weights_of_the_language_model():
    # given 3.09 billion parameters in bfloat16
    language = 2 * (3_754_622_976 - 668_684_288)
    # then
    assert times(QWEN, "h200").token > language / 4.8e12
    assert times(QWEN, "h200", pairs=400).token > times(QWEN, "h200").token


@pytest.mark.parametrize(("model", "measured"), [("qwen2.5-vl-3b", 27.2), ("qwen3-vl-4b", 20.2)])
def test_measured_speed_of_agx_orin_is_within_the_bound(model, measured):
    """Tokens a second in 16 bits with a short prompt, as users of TensorRT Edge-LLM report them."""
    bound = 1 / times(model, "agx-orin-64", pairs=1).token
    assert 0.7 * bound < measured < bound


def test_recurrent_layers_cost_no_attention():
    assert times("qwen3.5-4b", "h200", pairs=2000).token < times("qwen3-vl-4b", "h200", pairs=2000).token


def test_gpu_is_found_by_its_usual_name():
    assert find_gpu("RTX 4090") is GPUS["rtx-4090"]
    assert find_gpu("Jetson AGX Orin 64GB") is GPUS["agx-orin-64"]
    with pytest.raises(ConfigurationError, match=r"unknown GPU 'RTX 5'.*rtx-4090"):
        find_gpu("RTX 5")


def test_too_small_images_are_refused():
    with pytest.raises(ConfigurationError, match="max_pixels is 100"):
        sizes_of(QWEN).frame_pixels(100)
