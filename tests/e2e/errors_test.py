"""Bad requests and bad circumstances get the right error with the numbers, at once, and change
nothing: the next request works and every block is free again."""

import json
import re
import socket
import time
import unittest

import grpc

from cluster import CONTEXT_TOKENS, Cluster, ClusterTestCase, is_idle

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def numbers(text):
    return {int(number) for number in re.findall(r"\d+", text.replace(",", ""))}


class HttpErrorsTest(ClusterTestCase):
    def assert_refused(self, path, body, status, *words):
        code, answer = self.client.post(path, body)
        self.assertEqual(code, status, answer)
        error = answer["error"]
        self.assertEqual(set(error) & {"message", "type", "param", "code"},
                         {"message", "type", "param", "code"}, error)
        for word in words:
            self.assertIn(word, error["message"])
        return error

    def tearDown(self):
        self.assert_works()
        super().tearDown()

    def test_prompt_over_the_context(self):
        tokens = [100] * (CONTEXT_TOKENS + 8)
        error = self.assert_refused(COMPLETIONS, {"model": self.model, "prompt": tokens}, 400)
        self.assertLessEqual({CONTEXT_TOKENS, CONTEXT_TOKENS + 8}, numbers(error["message"]))

    def test_chat_over_the_context(self):
        error = self.assert_refused(CHAT, self.chat("word " * 20000), 400)
        self.assertIn(CONTEXT_TOKENS, numbers(error["message"]))
        self.assertGreater(max(numbers(error["message"])), 20000)
        self.assertEqual((error["param"], error["code"]),
                         ("messages", "context_length_exceeded"))

    def test_prompt_that_fills_the_context_leaves_no_room(self):
        tokens = [100] * CONTEXT_TOKENS
        error = self.assert_refused(COMPLETIONS, {"model": self.model, "prompt": tokens}, 400)
        self.assertIn(CONTEXT_TOKENS, numbers(error["message"]))

    def test_empty_prompts(self):
        self.assert_refused(CHAT, self.chat(messages=[]), 400, "messages")
        self.assert_refused(COMPLETIONS, {"model": self.model, "prompt": ""}, 400, "prompt")
        self.assert_refused(COMPLETIONS, {"model": self.model, "prompt": []}, 400, "prompt")
        self.assert_refused(COMPLETIONS, {"model": self.model}, 400, "prompt")
        self.assert_refused(CHAT, {"model": self.model}, 400, "messages")

    def test_max_tokens_below_one(self):
        for value in (0, -1):
            error = self.assert_refused(CHAT, self.chat(max_tokens=value), 400, "max_tokens",
                                        str(value))
            self.assertEqual(error["param"], "max_tokens")

    def test_values_out_of_range(self):
        for field, value in [("temperature", -0.5), ("temperature", 1e9), ("top_p", 0),
                             ("top_p", 1.5), ("top_k", -3), ("min_p", 2), ("n", 0), ("n", 1000),
                             ("presence_penalty", 9), ("max_tokens", 2**40)]:
            with self.subTest(field=field, value=value):
                self.assert_refused(CHAT, self.chat(**{field: value}), 400, field)

    def test_wrong_types(self):
        for field, value in [("messages", "hello"), ("messages", [1]), ("messages", [{"role": 1}]),
                             ("max_tokens", "ten"), ("max_tokens", 1.5), ("temperature", "hot"),
                             ("temperature", [1]), ("stream", "yes"), ("seed", {}), ("n", "two"),
                             ("stop", 7), ("stop", [7]), ("logit_bias", [1]), ("model", 5)]:
            with self.subTest(field=field, value=value):
                self.assert_refused(CHAT, self.chat(**{field: value}), 400, field)

    def test_token_ids_outside_the_vocabulary(self):
        for token in (-1, 10**6):
            self.assert_refused(COMPLETIONS, {"model": self.model, "prompt": [5, token]}, 400,
                                str(token))

    def test_unknown_field_names_the_nearest(self):
        self.assert_refused(CHAT, self.chat(temprature=0.5), 400, "temprature", "temperature")

    def test_unknown_model(self):
        error = self.assert_refused(CHAT, self.chat(model="gpt-9"), 404, "gpt-9")
        self.assertEqual(error["code"], "model_not_found")

    def test_unknown_routes_and_methods(self):
        self.assertEqual(self.client.request("GET", "/v1/nothing")[0], 404)
        self.assertEqual(self.client.request("GET", CHAT)[0], 405)
        self.assertEqual(self.client.request("DELETE", "/v1/models")[0], 405)

    def test_broken_json(self):
        for body in (b"", b"{", b'{"messages": [}', b"\xff\xfe", b"[1, 2]", b"null", b'"text"',
                     b'{"a":' * 5000, json.dumps(self.chat()).encode() + b"x"):
            with self.subTest(body=body[:20]):
                self.assert_refused(CHAT, body, 400)

    def test_20_mb_body(self):
        self.assertEqual(self.send_raw(self.head(20 << 20), b"x" * (20 << 20)), 413)

    def test_20_mb_body_in_chunks(self):
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        head = (f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                "Transfer-Encoding: chunked\r\n\r\n").encode()
        self.assertEqual(self.send_raw(head, chunk * 320), 413)

    def test_huge_headers(self):
        head = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Long: {'y' * (1 << 20)}\r\n\r\n".encode()
        self.assertIn(self.send_raw(head, b""), (400, 431))

    def head(self, length):
        return (f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Content-Length: {length}\r\n\r\n").encode()

    def send_raw(self, head, body):
        """The status of the answer, which may come before all of the body was taken."""
        host, port = self.client.http_address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            try:
                connection.sendall(head + body)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused early; the answer is waiting
            answer = b""
            while b"\r\n" not in answer:
                data = connection.recv(4096)
                self.assertTrue(data, "the connection was closed without an answer")
                answer += data
        return int(answer.split()[1])


class GrpcErrorsTest(ClusterTestCase):
    def assert_refused(self, code, *words, **request):
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.client.generate(**request))
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        for word in words:
            self.assertIn(word, caught.exception.details())
        return caught.exception.details()

    def tearDown(self):
        self.assert_works()
        super().tearDown()

    def test_prompt_over_the_context(self):
        details = self.assert_refused(grpc.StatusCode.INVALID_ARGUMENT,
                                      tokens=[100] * (CONTEXT_TOKENS + 8))
        self.assertLessEqual({CONTEXT_TOKENS, CONTEXT_TOKENS + 8}, numbers(details))

    def test_bad_arguments(self):
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        self.assert_refused(invalid, tokens=[])
        self.assert_refused(invalid, text="")
        self.assert_refused(invalid)
        self.assert_refused(invalid, "999999", tokens=[999999])
        self.assert_refused(invalid, "max_tokens", tokens=[5], sampling={"max_tokens": 0})
        self.assert_refused(invalid, "temperature", tokens=[5], sampling={"temperature": -1.0})
        self.assert_refused(invalid, "temperature", tokens=[5],
                            sampling={"temperature": float("nan")})
        self.assert_refused(invalid, "stop", tokens=[5], stop=["x" * 10000])

    def test_unknown_model(self):
        self.assert_refused(grpc.StatusCode.NOT_FOUND, "gpt-9", tokens=[5], model="gpt-9")

    def test_deadline(self):
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.client.generate(tokens=[5] * 2000, timeout=0.2,
                                      sampling={"max_tokens": 4000, "ignore_eos": True}))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)


class DisconnectTest(ClusterTestCase):
    """A client that goes away costs nothing: its blocks are free within a second. Reports of the
    workers may take another one to come."""

    deadline_s = 2.0

    def assert_idle_soon(self):
        begin = time.monotonic()
        self.cluster.check_idle(self.deadline_s)
        print(f"idle {time.monotonic() - begin:.2f} s after the client left", flush=True)

    def wait_until_running(self):
        def busy():
            return [worker for worker in self.client.fleet() if not is_idle(worker)]
        end = time.monotonic() + 10
        while not busy():
            self.assertLess(time.monotonic(), end, "the request never showed in the fleet")
            time.sleep(0.02)

    def test_http_stream(self):
        connection, events = self.client.open_stream(
            CHAT, self.chat("Tell a long story.", max_tokens=4000, ignore_eos=True))
        for _ in range(5):
            next(events)
        self.wait_until_running()
        connection.close()
        events.close()
        self.assert_idle_soon()
        self.assert_works()

    def test_http_while_prefilling(self):
        connection = self.client.connection()
        connection.request("POST", COMPLETIONS, json.dumps({
            "model": self.model, "prompt": [200] * 7000, "max_tokens": 100}).encode(),
            {"Content-Type": "application/json"})
        self.wait_until_running()
        connection.close()
        self.assert_idle_soon()
        self.assert_works()

    def test_grpc_stream(self):
        call = self.client.generate(tokens=[300] * 50, sampling={"max_tokens": 4000,
                                                                  "ignore_eos": True})
        for _ in range(5):
            next(call)
        self.wait_until_running()
        call.cancel()
        self.assert_idle_soon()
        self.assert_works()

    def test_many_at_once(self):
        streams = [self.client.open_stream(CHAT, self.chat(f"Story {i}.", max_tokens=4000,
                                                           ignore_eos=True)) for i in range(16)]
        for _, events in streams:
            next(events)
        self.wait_until_running()
        for connection, events in streams:
            connection.close()
            events.close()
        self.assert_idle_soon()
        self.assert_works()


class MissingWorkersTest(unittest.TestCase):
    def test_no_prefill_worker(self):
        """The decode worker prefills the prompt itself."""
        with Cluster() as cluster:
            _, decode = cluster.start_worker("decode", "d0")
            cluster.start_router([decode])
            cluster.wait_for_workers(1)
            finish = list(cluster.client.generate(tokens=[5] * 40, sampling={
                "max_tokens": 4, "temperature": 0.0, "ignore_eos": True}))[-1].finish
            self.assertEqual(finish.output_tokens, 4)
            self.assertEqual(finish.stats.prefill_worker, "d0")
            self.assertEqual(finish.stats.decode_worker, "d0")

    def test_no_decode_worker(self):
        with Cluster() as cluster:
            _, prefill = cluster.start_worker("prefill", "p0")
            cluster.start_router([prefill])
            cluster.wait_for_workers(1)
            status, answer = cluster.client.post(CHAT, {
                "model": cluster.model, "messages": [{"role": "user", "content": "Hi"}]})
            self.assertEqual(status, 503, answer)
            self.assertIn("decode", answer["error"]["message"])
            with self.assertRaises(grpc.RpcError) as caught:
                list(cluster.client.generate(tokens=[5]))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
            self.assertEqual(cluster.client.request("GET", "/ready")[0], 503)
            self.assertEqual(cluster.client.request("GET", "/health")[0], 200)

    def test_no_worker_at_all(self):
        with Cluster() as cluster:
            cluster.start_router(["127.0.0.1:1"])
            status, answer = cluster.client.post(CHAT, {
                "model": cluster.model, "messages": [{"role": "user", "content": "Hi"}]})
            self.assertEqual(status, 503, answer)
            self.assertEqual([worker.state for worker in cluster.client.fleet()], ["connecting"])


if __name__ == "__main__":
    unittest.main()
