"""The Python client of proto/, generated when it is imported."""

import atexit
import pathlib
import shutil
import sys
import tempfile

from grpc_tools import protoc

_PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
_OUT = tempfile.mkdtemp(prefix="baton-proto-")
atexit.register(shutil.rmtree, _OUT, ignore_errors=True)
if protoc.main(["protoc", f"-I{_PROTO}", f"--python_out={_OUT}", f"--grpc_python_out={_OUT}",
                "baton/v1/baton.proto"]) != 0:
    raise RuntimeError("protoc refused proto/baton/v1/baton.proto")
sys.path.insert(0, _OUT)

from baton.v1 import baton_pb2 as messages  # noqa: E402
from baton.v1 import baton_pb2_grpc as services  # noqa: E402


def stub(channel):
    return services.BatonStub(channel)


def generate_request(tokens=None, text=None, chat=None, sampling=None, stop=(), model="",
                     cache_salt=""):
    """`sampling` has the HTTP API's names and forms; `chat` is [(role, text)]."""
    request = messages.GenerateRequest(model=model, stop=stop, cache_salt=cache_salt)
    if tokens is not None:
        request.tokens.ids.extend(tokens)
        request.tokens.SetInParent()
    elif chat is not None:
        request.chat.SetInParent()
        for role, content in chat:
            request.chat.messages.add(role=role, content=content)
    elif text is not None:
        request.text = text
    for name, value in (sampling or {}).items():
        if name == "logit_bias":
            for token, bias in value.items():
                request.sampling.logit_bias.add(token=int(token), bias=bias)
        elif name in ("stop_token_ids", "allowed_token_ids", "bad_words"):
            getattr(request.sampling, name).extend(value)
        else:
            setattr(request.sampling, name, value)
    return request
