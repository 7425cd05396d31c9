"""The metrics page is Prometheus text that Prometheus' own parser reads."""

from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

from serving.savedmodel_server.metrics import FINE_BUCKETS_US, Metrics


def samples(metrics):
    found = {}
    for family in text_string_to_metric_families(metrics.page().decode()):
        for sample in family.samples:
            name = sample.name.removesuffix("_total")  # which this parser adds to counters
            found[name, *sorted(sample.labels.items())] = sample.value
    return found


def test_counts_and_latencies_are_read_back():
    metrics = Metrics()
    metrics.request_count.add(("m", "OK"))
    metrics.request_count.add(("m", "OK"))
    metrics.request_latency.observe(("m", "Predict", "REST"), 100.0)
    metrics.request_latency.observe(("m", "Predict", "REST"), 1e12)
    found = samples(metrics)
    assert found[":tensorflow:serving:request_count", ("model_name", "m"), ("status", "OK")] == 2
    labels = (("API", "Predict"), ("entrypoint", "REST"), ("model_name", "m"))
    assert found[":tensorflow:serving:request_latency_count", *labels] == 2
    buckets = [value for key, value in found.items() if key[0] == ":tensorflow:serving:request_latency_bucket"]
    assert buckets == sorted(buckets) and buckets[-2:] == [1, 2] and len(buckets) == len(FINE_BUCKETS_US) + 1


def test_a_value_is_counted_in_the_first_bucket_that_holds_it():
    metrics = Metrics()
    bound = FINE_BUCKETS_US[10]
    metrics.queuing_latency.observe(("p",), bound)
    found = samples(metrics)
    name, label = ":tensorflow:serving:batching_session:queuing_latency_bucket", ("thread_pool_name", "p")
    assert found[name, ("le", f"{bound:g}"), label] == 1
    assert found[name, ("le", f"{FINE_BUCKETS_US[9]:g}"), label] == 0


def test_label_values_keep_their_characters():
    metrics = Metrics()
    metrics.request_count.add(('a"b\\c\nd', "OK"))
    assert (":tensorflow:serving:request_count", ("model_name", 'a"b\\c\nd'), ("status", "OK")) in samples(metrics)


def test_neighbouring_buckets_are_finer_than_tensorflow_servings():
    assert all(b / a < 1.25 for a, b in pairwise(FINE_BUCKETS_US))
