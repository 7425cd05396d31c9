"""The metrics page is Prometheus text that Prometheus' own parser reads."""

from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

from serving.savedmodel_server.metrics import LATENCY_BUCKETS_US, QUEUING_BUCKETS_US, Metrics


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
    assert buckets == sorted(buckets) and buckets[-2:] == [1, 2] and len(buckets) == len(LATENCY_BUCKETS_US) + 1


def test_a_value_is_counted_in_the_first_bucket_that_holds_it():
    metrics = Metrics()
    bound = QUEUING_BUCKETS_US[10]
    metrics.queuing_latency.observe(("p",), bound)
    found = samples(metrics)
    name, label = ":tensorflow:serving:batching_session:queuing_latency_bucket", ("thread_pool_name", "p")
    assert found[name, ("le", f"{bound:g}"), label] == 1
    assert found[name, ("le", f"{QUEUING_BUCKETS_US[9]:g}"), label] == 0


def test_label_values_keep_their_characters():
    metrics = Metrics()
    metrics.request_count.add(('a"b\\c\nd', "OK"))
    assert (":tensorflow:serving:request_count", ("model_name", 'a"b\\c\nd'), ("status", "OK")) in samples(metrics)


def test_neighbouring_buckets_are_finer_than_tensorflow_servings():
    assert all(b / a < 1.25 for a, b in (*pairwise(LATENCY_BUCKETS_US), *pairwise(QUEUING_BUCKETS_US)))


def line_of(page, start):
    (line,) = [line for line in page.decode().splitlines() if line.startswith(start)]
    return line


def test_counters_over_a_million_are_whole_numbers():
    metrics = Metrics()
    metrics.request_count.add(("m", "OK"), 1_234_567)
    metrics.request_count.add(("m", "OK"))
    assert line_of(metrics.page(), ":tensorflow:serving:request_count{").endswith(" 1234568")


def test_sums_keep_every_digit():
    metrics = Metrics()
    for value in (123_456_789.25, 0.0009765625):
        metrics.request_latency.observe(("m", "predict", "REST"), value)
    text = line_of(metrics.page(), ":tensorflow:serving:request_latency_sum{").rpartition(" ")[2]
    assert float(text) == 123_456_789.25 + 0.0009765625


def bounds_on_the_page(metrics, name):
    lines = [line for line in metrics.page().decode().splitlines() if line.startswith(f"{name}_bucket")]
    return [line.partition('le="')[2].partition('"')[0] for line in lines]


def test_tensorflow_servings_bucket_bounds_are_among_ours():
    metrics = Metrics()
    metrics.request_latency.observe(("m", "predict", "REST"), 1.0)
    metrics.runtime_latency.observe(("m", "Predict", "TF1"), 1.0)
    metrics.queuing_latency.observe(("p",), 1.0)
    requests = {f"{10 * 1.8**i:g}" for i in range(33)} | {"+Inf"}
    queues = {f"{100 * 1.2**i:g}" for i in range(52)} | {"+Inf"}
    assert {"10", "18", "32.4", "104.976", "188.957"} <= requests
    assert requests <= set(bounds_on_the_page(metrics, ":tensorflow:serving:request_latency"))
    assert requests <= set(bounds_on_the_page(metrics, ":tensorflow:serving:runtime_latency"))
    assert queues <= set(bounds_on_the_page(metrics, ":tensorflow:serving:batching_session:queuing_latency"))


def test_failures_count_under_the_name_that_they_ask_for_up_to_a_bound():
    metrics = Metrics()
    for number in range(200):
        metrics.count_failure(f"nope{number}", "NOT_FOUND", is_served=False)
    metrics.count_failure("nope7", "NOT_FOUND", is_served=False)
    metrics.count_failure("n" * 129, "NOT_FOUND", is_served=False)
    metrics.count_failure("m", "INVALID_ARGUMENT", is_served=True)
    found = samples(metrics)
    counts = {dict(key[1:])["model_name"]: count for key, count in found.items() if "request_count" in key[0]}
    assert counts["nope7"] == 2 and counts["nope0"] == 1 and counts["m"] == 1
    assert len(counts) == 102 and counts[""] == 101


def test_values_that_are_counted_together_count_as_one_by_one():
    alone, together = Metrics(), Metrics()
    values = [float(number) for number in range(0, 9000, 2)] + [QUEUING_BUCKETS_US[7], 1e12]
    for value in values:
        alone.queuing_latency.observe(("p",), value)
    for begin in range(0, len(values), 100):
        together.queuing_latency.observe_all(("p",), values[begin : begin + 100])
    assert together.page() == alone.page() and together.page() == alone.page()


def test_a_run_of_a_graph_counts_in_its_three_families():
    metrics = Metrics()
    for micros in (1500.4, 2500.4):
        metrics.count_graph_run(micros)
    found = samples(metrics)
    assert found[(":tensorflow:core:graph_runs",)] == 2
    assert found[(":tensorflow:core:graph_run_time_usecs",)] == 4000
    histogram = ":tensorflow:core:graph_run_time_usecs_histogram"
    assert found[f"{histogram}_bucket", ("le", "2000")] == 1 and found[(f"{histogram}_count",)] == 2
    bounds = bounds_on_the_page(metrics, histogram)
    assert bounds == [*(f"{1000 * 2**i:g}" for i in range(20)), "+Inf"]


def test_families_without_samples_are_on_the_page():
    assert b"# TYPE :tensorflow:serving:request_log_count counter" in Metrics().page()


def test_the_first_value_of_a_counter_is_asked_by_tensorflows_own_name():
    metrics = Metrics()
    metrics.request_count.add(("z", "OK"), 7)
    metrics.request_count.add(("a", "OK"), 3)
    metrics.request_latency.observe(("a", "", "REST"), 1.0)
    names = ("request_count", "request_latency", "request_log_count", "nope")
    assert [metrics.first_value(f"/tensorflow/serving/{name}") for name in names] == [3, 0, 0, 0]
    assert metrics.first_value(":tensorflow:serving:request_count") == 0
