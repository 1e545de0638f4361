"""An audit finds the samplers that a metric prefers to the teacher."""

from dihal_bench.evaluation.samples.adversarial_baselines import (
    NaiveSampler,
    at_entropy,
    naive_samplers,
    verdicts,
)
from dihal_bench.evaluation.samples.frontier import Point
from dihal_bench.evaluation.samples.metrics import measures
from dihal_bench.evaluation.samples.settings import Measure, SampleMetricContext, Settings
from dihal_bench.results.metrics import GEN_PPL_AT_ENTROPY

from ...conftest import Tiny


def made(**values: float) -> dict[str, Measure]:
    return {n: Measure(value=v, lo=v, hi=v, unit="", n=1) for n, v in values.items()}


def test_a_verdict_names_who_is_ranked_above_the_teacher() -> None:
    teacher = made(gen_ppl=60.0, mauve=0.9, entropy=4.0, energy=0.1)
    data = made(gen_ppl=30.0, mauve=0.95, entropy=4.3, energy=0.0)
    rows = [
        NaiveSampler(
            "loop", "periodic", False, made(gen_ppl=2.0, mauve=0.1, entropy=4.2, energy=9.0)
        ),
        NaiveSampler("phrases", "phrase", False, made(gen_ppl=42.0, mauve=0.2, entropy=3.0)),
        NaiveSampler(
            "noise", "top", False, made(gen_ppl=900.0, mauve=0.95, entropy=4.9, energy=0.3)
        ),
    ]
    found = verdicts(rows, teacher, data)
    assert found["gen_ppl"].fooled == ("loop", "phrases")
    assert found["gen_ppl"].worst == "loop"
    assert found["mauve"].fooled == ("noise",)
    assert found["entropy"].fooled == ("loop",)  # 0.1 from the data's, the teacher 0.3
    assert found["energy"].fooled == ()
    assert "self_bleu" not in found


def test_what_noise_may_have_ranked_below_is_close() -> None:
    def one(value: float, half: float, **details: float) -> dict[str, Measure]:
        lo, hi = (None, None) if details else (value - half, value + half)
        return {"mauve": Measure(value=value, lo=lo, hi=hi, unit="", n=1, details=details)}

    rows = [
        NaiveSampler("near", "top", False, one(0.925, 0, least=0.89, largest=0.95)),
        NaiveSampler("far", "top", False, one(0.5, 0, least=0.4, largest=0.6)),
    ]
    found = verdicts(rows, one(0.93, 0, least=0.88, largest=0.97), {})["mauve"]
    assert (found.fooled, found.close) == ((), ("near",))

    def entropy(value: float, half: float) -> dict[str, Measure]:
        return {"entropy": Measure(value=value, lo=value - half, hi=value + half, unit="", n=1)}

    rows = [NaiveSampler(str(v), "top", False, entropy(v, 0.05)) for v in (4.0, 4.26, 4.4, 3.9)]
    found = verdicts(rows, entropy(4.35, 0.05), entropy(4.15, 0.01))["entropy"]
    assert found.fooled == ("4.0", "4.26")
    assert found.close == ("4.4", "3.9")  # 0.2 away and more, with intervals that reach nearer


def test_at_equal_entropy_who_is_under_the_curve_fools() -> None:
    curve = [Point("teacher", t, t + 3, 10 ** (t + 1)) for t in (0.5, 1.0, 1.5)]
    rows = [
        NaiveSampler("repeats", "repeated", False, made(entropy=3.75, gen_ppl=20.0)),  # there 56.2
        NaiveSampler("loop", "periodic", False, made(entropy=4.0, gen_ppl=1.0)),
        NaiveSampler("above it", "top", False, made(entropy=4.0, gen_ppl=100.5)),
        NaiveSampler(
            "one word", "periodic", False, made(entropy=0.0, gen_ppl=1.0)
        ),  # beyond its ends
        NaiveSampler("unjudged", "top", False, made(entropy=4.0)),
    ]
    verdict = at_entropy(rows, curve)[GEN_PPL_AT_ENTROPY.key]
    assert verdict.fooled == ("loop", "repeats")
    assert verdict.worst == "loop"
    assert at_entropy(rows, []) == {}


def test_an_equal_value_fools_nobody() -> None:
    same = made(gen_ppl=60.0)
    assert verdicts([NaiveSampler("x", "top", False, same)], same, same)["gen_ppl"].fooled == ()


def test_all_impostors_are_measured_by_every_metric_that_can_be_given(tiny: Tiny) -> None:
    from dihal_bench.data.sources import load_corpus
    from dihal_bench.data.tokens import pack
    from dihal_bench.evaluation.samples.judge import Judge
    from dihal_bench.evaluation.samples.sampling import beginnings
    from dihal_bench.models.model import Backbone

    teacher = Backbone.load(str(tiny.backbone))
    text = pack(load_corpus(str(tiny.corpus)), "train", teacher.tokenizer, window=32)
    real = beginnings(text, teacher.tokenizer, tokens=16, count=24)
    settings = Settings(bleu=10, mauve_seeds=1, permutations=9, resamples=100)
    yard = SampleMetricContext(Judge(teacher), real, [text], settings)
    prompts = [[0]] * 24
    rows = naive_samplers(yard, text.stream(4096), teacher.tokenizer, prompts, tokens=16, seed=0)
    names = [row.name for row in rows]
    assert {"top-32", "mirror-5000", "periodic-64", "phrase-1000"} <= set(names)
    assert [row.name for row in rows if row.published] == [
        "top-32",
        "mirror-5000",
        "periodic-64",
        "phrase-1000",
    ]
    assert {"real text, shuffled", "8 real texts, repeated"} <= set(names)
    by_name = {row.name: row.measures for row in rows}
    assert set(by_name["top-32"]) == measures().keys()
    assert by_name["8 real texts, repeated"]["duplicates"].value == 16 / 24
    assert by_name["periodic-64"]["duplicates"].value == 23 / 24
    assert by_name["real text, shuffled"]["overlap_8"].value < 0.5
    assert by_name["8 real texts, repeated"]["overlap_8"].value == 1.0
