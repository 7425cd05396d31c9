"""LitServe on the SavedModel, with its own dynamic batching: `python litserve_server.py VERSION_DIR PORT`."""

import base64
import sys

import litserve


class Classifier(litserve.LitAPI):
    def setup(self, device):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.tf = tf
        self.loaded = tf.saved_model.load(sys.argv[1])
        self.run = self.loaded.signatures["serving_default"]

    def decode_request(self, request):
        return base64.b64decode(request["image"])

    def batch(self, inputs):
        return inputs

    def predict(self, x):
        (found,) = self.run(self.tf.constant(x)).values()
        return found.numpy()

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return output.tolist()


if __name__ == "__main__":
    api = Classifier(max_batch_size=32, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
