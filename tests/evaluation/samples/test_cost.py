"""What all metrics cost at the size at which they are trusted."""

import time

import numpy as np
import pytest

from dihal_bench.data.sources import load_corpus
from dihal_bench.data.tokens import pack
from dihal_bench.evaluation.samples.judge import Judge
from dihal_bench.evaluation.samples.metrics import measure, measures
from dihal_bench.evaluation.samples.ngram_samplers import Counts
from dihal_bench.evaluation.samples.sampling import Samples
from dihal_bench.evaluation.samples.settings import SampleMetricContext, Settings
from dihal_bench.models.loading import JUDGE
from dihal_bench.models.model import Backbone

pytestmark = pytest.mark.nightly

COUNT, TOKENS = 1000, 128


def test_all_metrics_of_a_thousand_samples_take_minutes() -> None:
    """On two cores; beside as many real texts, with the bundled judge and the default settings."""
    backbone = Backbone.load("bundled")
    text = pack(load_corpus("bundled"), "validation", backbone.tokenizer, window=256)
    stream = text.stream(COUNT * TOKENS)
    real = np.resize(stream, (COUNT, TOKENS)).tolist()
    drawn = Counts.of(stream, without=backbone.tokenizer.all_special_ids).draw(
        "phrase", 1000, rows=COUNT, tokens=TOKENS, seed=0
    )
    prompts = [[backbone.tokenizer.eos_token_id]] * COUNT
    known, own = (
        Samples.of(ids, backbone.tokenizer, prompts=prompts) for ids in (real, drawn.tolist())
    )
    start = time.perf_counter()
    yard = SampleMetricContext(Judge(Backbone.load(JUDGE)), known, [text], Settings(), size=COUNT)
    found, missing = measure(yard.subject(own))
    assert time.perf_counter() - start < 180
    assert found.keys() == measures().keys()
    assert not missing
    assert found["mauve"].details["few"] is False
    assert found["energy"].details["real"] == found["energy"].n == COUNT
