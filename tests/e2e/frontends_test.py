"""What gRPC clients see beside the plain answer: resumed streams, typed errors, health, and the Open
Inference Protocol."""

import atexit
import json
import pathlib
import shutil
import struct
import sys
import tempfile
import time
import unittest

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_tools import protoc

import baton_proto
from cluster import Cluster, reference

_PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
_OUT = tempfile.mkdtemp(prefix="baton-kserve-")
atexit.register(shutil.rmtree, _OUT, ignore_errors=True)
_WELL_KNOWN = pathlib.Path(protoc.__file__).resolve().parent / "_proto"
if protoc.main(["protoc", f"-I{_PROTO}", f"-I{_WELL_KNOWN}", f"--python_out={_OUT}", f"--grpc_python_out={_OUT}",
                "inference/grpc_service.proto", "google/rpc/status.proto",
                "google/rpc/error_details.proto"]) != 0:
    raise RuntimeError("protoc refused proto/inference/grpc_service.proto")
sys.path.insert(0, _OUT)
# google is a package of protobuf's too: what was made here is found beside it.
import google  # noqa: E402
google.__path__.append(str(pathlib.Path(_OUT) / "google"))
from google.rpc import error_details_pb2, status_pb2  # noqa: E402
from inference import grpc_service_pb2 as kserve  # noqa: E402
from inference import grpc_service_pb2_grpc as kserve_services  # noqa: E402


def details_of(error):
    """{name of the detail: message} of a grpc.RpcError."""
    packed = dict(error.trailing_metadata()).get("grpc-status-details-bin")
    status = status_pb2.Status.FromString(packed)
    if status.code != error.code().value[0] or status.message != error.details():
        raise AssertionError(f"the details say {status}, the error {error}")
    found = {}
    for detail in status.details:
        name = detail.TypeName().rsplit(".", 1)[1]
        found[name] = getattr(error_details_pb2, name).FromString(detail.value)
    return found


def bytes_input(name, text, raw=None):
    tensor = kserve.ModelInferRequest.InferInputTensor(name=name, datatype="BYTES", shape=[1])
    data = text.encode()
    if raw is None:
        tensor.contents.bytes_contents.append(data)
    else:
        raw.append(struct.pack("<I", len(data)) + data)
    return tensor


def bool_input(name, value, raw=None):
    tensor = kserve.ModelInferRequest.InferInputTensor(name=name, datatype="BOOL", shape=[1])
    if raw is None:
        tensor.contents.bool_contents.append(value)
    else:
        raw.append(struct.pack("?", value))
    return tensor


def infer_request(model, text, stream=None, raw=False, sampling=None, id=""):
    """As tritonclient makes it with raw=True, as KServe's clients do without."""
    contents = [] if raw else None
    inputs = [bytes_input("text_input", text, contents)]
    if stream is not None:
        inputs.append(bool_input("stream", stream, contents))
    inputs.append(bytes_input("sampling_parameters",
                              json.dumps({"temperature": "0", "max_tokens": 12, **(sampling or {})}),
                              contents))
    return kserve.ModelInferRequest(model_name=model, id=id, inputs=inputs,
                                    raw_input_contents=contents or [])


def text_of(response):
    raw = response.raw_output_contents[0]
    size, = struct.unpack("<I", raw[:4])
    if size != len(raw) - 4:
        raise AssertionError(f"an element of {size} bytes in {len(raw)}")
    return raw[4:].decode()


class FrontendsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster.up()
        cls.client = cls.cluster.client
        cls.kserve = kserve_services.GRPCInferenceServiceStub(cls.client.channel)
        cls.model = cls.cluster.model

    @classmethod
    def tearDownClass(cls):
        cls.cluster.check_idle_for_sure()
        cls.cluster.stop()

    def expected(self, text, max_tokens=12):
        sampling = {"max_tokens": max_tokens, "temperature": 0}
        return reference([{"prompt": text, "sampling": sampling}])[0]["text"]

    # Open Inference Protocol.

    def test_infer_in_one_piece(self):
        prompt = "The capital of France is"
        for raw in (False, True):
            request = infer_request(self.model, prompt, raw=raw, id="7")
            response = self.kserve.ModelInfer(request, timeout=60)
            self.assertEqual((response.id, response.model_name), ("7", self.model))
            self.assertEqual(text_of(response), prompt + self.expected(prompt))

    def test_infer_stream(self):
        prompts = ["Once upon a time", "The capital of France is"]
        requests = [infer_request(self.model, prompt, stream=True, raw=True, id=str(i))
                    for i, prompt in enumerate(prompts)]
        requests.insert(1, infer_request(self.model, "x", sampling={"temprature": 1}, id="bad"))
        texts, errors = {}, []
        for message in self.kserve.ModelStreamInfer(iter(requests), timeout=60):
            response = message.infer_response
            if message.error_message:
                errors.append((response.id, message.error_message))
                continue
            texts.setdefault(response.id, []).append(text_of(response))
        for i, prompt in enumerate(prompts):
            self.assertGreater(len(texts[str(i)]), 3)
            self.assertEqual("".join(texts[str(i)]), self.expected(prompt))
        self.assertEqual([id for id, _ in errors], ["bad"])
        self.assertIn("did you mean 'temperature'", errors[0][1])

    def test_infer_ready_and_metadata(self):
        self.assertTrue(self.kserve.ServerLive(kserve.ServerLiveRequest(), timeout=10).live)
        self.assertTrue(self.kserve.ServerReady(kserve.ServerReadyRequest(), timeout=10).ready)
        ready = self.kserve.ModelReady(kserve.ModelReadyRequest(name=self.model), timeout=10)
        self.assertTrue(ready.ready)
        metadata = self.kserve.ModelMetadata(kserve.ModelMetadataRequest(name=self.model),
                                             timeout=10)
        self.assertIn("text_input", [tensor.name for tensor in metadata.inputs])

    # Health, errors, deadlines.

    def test_health_by_model(self):
        stub = health_pb2_grpc.HealthStub(self.client.channel)
        for service in ("", "baton.v1.Baton", "inference.GRPCInferenceService", self.model):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING, service)
        with self.assertRaises(grpc.RpcError) as raised:
            stub.Check(health_pb2.HealthCheckRequest(service="no-such-model"), timeout=10)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)

    def failure(self, **request):
        with self.assertRaises(grpc.RpcError) as raised:
            list(self.client.generate(**request))
        return raised.exception.code(), details_of(raised.exception)

    def test_errors_have_details(self):
        code, details = self.failure(tokens=[5], sampling={"top_p": 7})
        self.assertEqual(code, grpc.StatusCode.INVALID_ARGUMENT)
        violation = details["BadRequest"].field_violations[0]
        self.assertEqual(violation.field, "sampling.top_p")
        self.assertIn("top_p is 7", violation.description)
        code, details = self.failure(tokens=[5] * 9000)
        self.assertEqual(details["ErrorInfo"].reason, "CONTEXT_LENGTH_EXCEEDED")
        self.assertEqual(details["ErrorInfo"].domain, "baton")
        code, details = self.failure(tokens=[5], model="other")
        self.assertEqual((code, details["ErrorInfo"].reason),
                         (grpc.StatusCode.NOT_FOUND, "NOT_FOUND"))

    def test_deadlines_are_honoured(self):
        begin = time.monotonic()
        with self.assertRaises(grpc.RpcError) as raised:
            list(self.client.generate(tokens=[5], timeout=1,
                                      sampling={"max_tokens": 8000, "ignore_eos": True}))
        self.assertEqual(raised.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertLess(time.monotonic() - begin, 20)
        self.cluster.check_idle(20)

    # Resume.

    def whole(self, sampling):
        """(seed, tokens, text by the number of tokens before it, finish)."""
        request = baton_proto.generate_request(text="Once upon a time", sampling=sampling)
        request.resumable = True
        events = list(self.client.stub.Generate(request, timeout=120))
        self.assertEqual(events[0].WhichOneof("event"), "started")
        tokens, texts = [], {}
        for event in events[1:-1]:
            texts[event.delta.index] = event.delta.text
            tokens += event.delta.tokens
        return events[0].started.seed, tokens, texts, events[-1].finish

    def resume(self, tokens, sampling, stop=()):
        request = baton_proto.generate_request(text="Once upon a time", sampling=sampling, stop=stop)
        request.resume_tokens.extend(tokens)
        events = list(self.client.stub.Generate(request, timeout=120))
        rest, text = [], ""
        for event in events[:-1]:
            if event.delta.tokens:
                self.assertEqual(event.delta.index, len(tokens) + len(rest))
            rest += event.delta.tokens
            text += event.delta.text
        return rest, text, events[-1].finish

    def test_resumed_streams_go_on_with_the_same_tokens(self):
        for more in ({"temperature": 0},
                     {"temperature": 1.2, "top_p": 0.9, "repetition_penalty": 1.3,
                      "presence_penalty": 0.5, "frequency_penalty": 0.4}):
            sampling = {"max_tokens": 40, "min_tokens": 30, **more}
            seed, tokens, texts, finish = self.whole(sampling)
            sampling["seed"] = seed
            for has in (1, 17, len(tokens) - 1):
                rest, text, end = self.resume(tokens[:has], sampling)
                self.assertEqual(rest, tokens[has:], (more, has))
                self.assertEqual(text, "".join(part for index, part in texts.items()
                                               if index >= has))
                self.assertEqual((end.reason, end.output_tokens, end.prompt_tokens),
                                 (finish.reason, finish.output_tokens, finish.prompt_tokens))

    def test_a_stream_that_lacked_only_its_end_is_ended(self):
        sampling = {"max_tokens": 10, "temperature": 0}
        _, tokens, _, finish = self.whole(sampling)
        rest, _, end = self.resume(tokens, sampling)
        self.assertEqual(rest, [])
        self.assertEqual((end.reason, end.output_tokens), (finish.reason, finish.output_tokens))

    def test_what_cannot_be_resumed_is_refused(self):
        for sampling, tokens, words in (
                ({"temperature": 1}, [5], "seed"),
                ({"temperature": 0, "max_tokens": 2}, [5, 5, 5], "max_tokens is 2"),
                ({"temperature": 0}, [10 ** 6], "vocabulary")):
            with self.assertRaises(grpc.RpcError) as raised:
                self.resume(tokens, sampling)
            self.assertEqual(raised.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertIn(words, raised.exception.details())


if __name__ == "__main__":
    unittest.main()
