"""TLS, API keys, limits and fairness over real processes."""

import http.client
import json
import os
import pathlib
import socket
import ssl
import tempfile
import threading
import time
import unittest

import grpc

import baton_proto
from certificates import Authority
from cluster import MODEL, Cluster, run_baton, wait_until

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def small(model, **more):
    return {"model": model, "prompt": [100, 200, 300], "max_tokens": 4, "temperature": 0, **more}


def https(address, context, method="GET", path="/health", body=None):
    """(status, parsed JSON, the server certificate's serial number)."""
    connection = http.client.HTTPSConnection(address, context=context, timeout=60)
    try:
        connection.request(method, path, json.dumps(body) if body else None,
                           {"Content-Type": "application/json"})
        serial = connection.sock.getpeercert().get("serialNumber")
        response = connection.getresponse()
        return response.status, json.loads(response.read()), serial
    finally:
        connection.close()


class TlsTest(unittest.TestCase):
    """One cluster whose front ends and links are all encrypted, with client certificates."""

    @classmethod
    def setUpClass(cls):
        cls.authority = Authority()
        cls.cluster = Cluster()
        certificate, key = cls.authority.issue("server")
        links = {"link_ca": cls.authority.ca}
        links["link_cert"], links["link_key"] = cls.authority.issue("link")
        cls.links = links
        addresses = [cls.cluster.start_worker("decode", "decode-0", **links)[1]]
        cls.addresses = addresses
        cls.router = cls.cluster.start(
            "router", "--workers", ",".join(addresses), "--model", MODEL, "--http", "127.0.0.1:0",
            "--grpc", "127.0.0.1:0", "--tls-cert", certificate, "--tls-key", key,
            "--tls-client-ca", cls.authority.ca,
            *sum([[f"--{name.replace('_', '-')}", str(path)] for name, path in links.items()], []))
        cls.ready = cls.router.wait_ready()
        cls.client_files = cls.authority.issue("client")
        cls.context = ssl.create_default_context(cafile=cls.authority.ca)
        cls.context.load_cert_chain(*cls.client_files)
        wait_until(lambda: https(cls.ready["http"], cls.context, path="/ready")[0] == 200, 60,
                   "the router reaches its worker over TLS")

    @classmethod
    def tearDownClass(cls):
        cls.cluster.stop()
        cls.authority.close()

    def channel(self, with_certificate=True):
        files = [path.read_bytes() for path in self.client_files]
        return grpc.secure_channel(self.ready["grpc"], grpc.ssl_channel_credentials(
            self.authority.ca.read_bytes(), *(reversed(files) if with_certificate else ())))

    def test_http_answers_streams_and_keeps_connections(self):
        connection = http.client.HTTPSConnection(self.ready["http"], context=self.context,
                                                 timeout=60)
        for stream in (False, True, True, False):
            connection.request("POST", COMPLETIONS, json.dumps(small("", stream=stream)),
                               {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode()
            self.assertEqual(response.status, 200, text)
            self.assertEqual("[DONE]" in text, stream)
        connection.close()

    def test_large_bodies_come_through(self):
        body = small("", prompt=" word" * 5000, max_tokens=1)
        status, answer, _ = https(self.ready["http"], self.context, "POST", COMPLETIONS, body)
        self.assertEqual(status, 200, answer)
        self.assertGreaterEqual(answer["usage"]["prompt_tokens"], 5000)

    def test_http_without_a_client_certificate_is_refused(self):
        context = ssl.create_default_context(cafile=self.authority.ca)
        with self.assertRaises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            https(self.ready["http"], context)

    def test_plain_http_gets_nothing(self):
        connection = http.client.HTTPConnection(self.ready["http"], timeout=60)
        connection.request("GET", "/health")
        with self.assertRaises((http.client.HTTPException, ConnectionError)):
            connection.getresponse()
        connection.close()

    def test_grpc_with_and_without_a_client_certificate(self):
        request = baton_proto.generate_request(text="Hello", sampling={"max_tokens": 3})
        with self.channel() as channel:
            events = list(baton_proto.stub(channel).Generate(request, timeout=60))
        self.assertEqual(events[-1].finish.output_tokens, 3)
        with self.channel(with_certificate=False) as channel:
            with self.assertRaises(grpc.RpcError) as raised:
                list(baton_proto.stub(channel).Generate(request, timeout=20))
        self.assertEqual(raised.exception.code(), grpc.StatusCode.UNAVAILABLE)

    def test_a_router_without_a_certificate_does_not_get_to_the_worker(self):
        with Cluster() as other:
            process = other.start("router", "--workers", self.addresses[0], "--model", MODEL,
                                  "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0")
            other.connect(process.wait_ready())
            time.sleep(1)
            self.assertEqual(other.client.request("GET", "/ready")[0], 503)

    def serial(self, address, files):
        """Of the certificate that a server shows to a client with these files."""
        context = ssl.create_default_context(cafile=self.authority.ca)
        context.load_cert_chain(*files)
        context.set_alpn_protocols(["h2"])
        host, port = address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), 60) as plain:
            with context.wrap_socket(plain, server_hostname=host) as encrypted:
                return encrypted.getpeercert()["serialNumber"]

    def renew(self, name):
        for end, new in zip(("crt", "key"), self.authority.issue(f"{name}-renewed")):
            os.replace(new, self.authority.path / f"{name}.{end}")

    def test_new_certificates_are_used_without_a_restart(self):
        before = https(self.ready["http"], self.context)[2]
        self.assertEqual(self.serial(self.ready["grpc"], self.client_files), before)
        self.renew("server")
        wait_until(lambda: https(self.ready["http"], self.context)[2] != before, 30,
                   "HTTP serves the renewed certificate")
        wait_until(lambda: self.serial(self.ready["grpc"], self.client_files) != before, 30,
                   "gRPC serves the renewed certificate")
        self.test_grpc_with_and_without_a_client_certificate()

    def test_new_certificates_of_links_are_used_without_a_restart(self):
        link = (self.links["link_cert"], self.links["link_key"])
        before = self.serial(self.addresses[0], link)
        self.renew("link")
        wait_until(lambda: self.serial(self.addresses[0], link) != before, 30,
                   "the worker serves the renewed certificate")
        with Cluster() as other:  # whose router has the renewed one, too
            other.start_router(self.addresses, **self.links)
            other.wait_for_workers(1)

    def test_a_link_with_another_authoritys_certificate_is_refused(self):
        stranger = Authority()
        self.addCleanup(stranger.close)
        certificate, key = stranger.issue("link")
        for ca, why in ((stranger.ca, "certificate verify failed"), (self.authority.ca, "")):
            with Cluster() as other:
                process = other.start_router(self.addresses, link_cert=certificate, link_key=key,
                                             link_ca=ca)
                wait_until(lambda: "is down" in process.log_tail(), 30, "the link is refused")
                self.assertIn(why, process.log_tail())
                self.assertIn(self.addresses[0], process.log_tail())
                self.assertEqual(other.client.request("GET", "/ready")[0], 503)

    def test_chat_over_https(self):
        url = "https://" + self.ready["http"]
        certificate, key = self.client_files
        told = run_baton("chat", "--url", url, "--ca", self.authority.ca, "--cert", certificate,
                         "--key", key, "--max-tokens", 4, "Say hello.")
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertTrue(told.stdout.strip())
        refused = run_baton("chat", "--url", url, "--cert", certificate, "--key", key, "Hello")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("certificate verify failed", refused.stderr)


    def test_load_over_https(self):
        certificate, key = self.client_files
        load = ["bench", "serve", "--url", "https://" + self.ready["http"], "--cert", certificate,
                "--key", key, "--concurrency", 2, "--requests", 4, "--input", 8, "--output", 3,
                "--json"]
        told = run_baton(*load, "--ca", self.authority.ca)
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertEqual(json.loads(told.stdout.splitlines()[0])["ok"], 4)
        self.assertEqual(run_baton(*load, "--insecure-tls").returncode, 0)
        refused = run_baton(*load)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("certificate verify failed", refused.stderr + refused.stdout)


class AddressTest(unittest.TestCase):
    def assert_refused(self, *arguments, words):
        result = run_baton(*arguments)
        self.assertEqual(result.returncode, 1, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)

    def test_other_addresses_need_tls_or_insecure(self):
        router = ["router", "--model", MODEL, "--grpc", "127.0.0.1:0"]
        self.assert_refused(*router, "--http", "0.0.0.0:0", "--workers", "127.0.0.1:1",
                            words=["--http 0.0.0.0:0", "--tls-cert", "--insecure"])
        self.assert_refused(*router, "--http", "127.0.0.1:0", "--workers", "10.1.2.3:9",
                            words=["--workers 10.1.2.3:9", "--link-cert", "--insecure"])
        worker = ["worker", "--role", "decode", "--model", MODEL, "--listen", "0.0.0.0:0"]
        self.assert_refused(*worker, words=["--listen 0.0.0.0:0", "--link-cert", "--insecure"])

    def test_kv_over_the_network_needs_a_word_too(self):
        authority = Authority()
        certificate, key = authority.issue("link")
        self.assert_refused("worker", "--role", "decode", "--model", MODEL, "--listen", "0.0.0.0:0",
                            "--link-cert", certificate, "--link-key", key, "--link-ca",
                            authority.ca, words=["KV that moves", "--insecure-kv"])
        authority.close()

    def test_unsound_files_are_named(self):
        router = ["router", "--model", MODEL, "--workers", "127.0.0.1:1"]
        self.assert_refused(*router, "--tls-cert", "/nowhere", words=["--tls-key"])
        self.assert_refused(*router, "--tls-cert", "/nowhere", "--tls-key", "/nowhere",
                            words=["/nowhere cannot be read"])
        self.assert_refused(*router, "--keys-file", "/nowhere", words=["/nowhere", "No such file"])


class KeysTest(unittest.TestCase):
    """One cluster with a keys file."""

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix="baton-keys-")
        cls.file = pathlib.Path(cls.directory.name) / "keys.yaml"
        cls.alice = cls.add("alice", "--tenant", "acme")
        cls.carol = cls.add("carol", "--tenant", "acme")
        cls.bob = cls.add("bob")
        cls.slow = cls.add("slow", "--requests-per-second", "0.01")
        cls.narrow = cls.add("narrow", "--concurrent-requests", "1")
        cls.poor = cls.add("poor", "--tokens-per-day", "10")
        cls.gone = cls.add("gone")
        cls.command("revoke", "gone")
        cls.cluster = Cluster()
        _, worker = cls.cluster.start_worker("decode", "decode-0")
        cls.ready = cls.cluster.start(
            "router", "--workers", worker, "--model", MODEL, "--http", "127.0.0.1:0", "--grpc",
            "127.0.0.1:0", "--keys-file", cls.file).wait_ready()
        from cluster import Client
        cls.client = Client(cls.ready["http"], cls.ready["grpc"])
        wait_until(lambda: cls.client.request("GET", "/ready")[0] == 200, 60, "a worker is there")

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.cluster.stop()
        cls.directory.cleanup()

    @classmethod
    def command(cls, *arguments):
        result = run_baton("keys", *arguments, "--keys-file", cls.file)
        if result.returncode != 0:
            raise AssertionError(result.stderr)
        return result.stdout.strip()

    @classmethod
    def add(cls, name, *limits):
        return cls.command("add", name, *limits)

    def ask(self, key, **more):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return self.client.request("POST", COMPLETIONS, small("", **more), headers=headers)

    def assert_error(self, answer, status, code):
        self.assertEqual(answer[0], status, answer)
        self.assertEqual(answer[1]["error"]["code"], code)
        self.assertEqual(set(answer[1]["error"]), {"message", "type", "param", "code"})

    def test_the_file_has_no_key(self):
        text = self.file.read_text()
        for key in (self.alice, self.bob):
            self.assertTrue(key.startswith("bk-"))
            self.assertNotIn(key[3:], text)
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)
        listed = self.command("list")
        self.assertIn("alice", listed)
        self.assertRegex(listed, r"gone .* revoked")

    def test_http(self):
        self.assertEqual(self.ask(self.alice)[0], 200)
        self.assert_error(self.ask(None), 401, "invalid_api_key")
        self.assert_error(self.ask("bk-" + "x" * 43), 401, "invalid_api_key")
        self.assert_error(self.ask(self.gone), 403, "revoked_api_key")
        self.assertEqual(self.client.request("GET", "/v1/models")[0], 401)
        for path in ("/health", "/ready", "/metrics"):
            self.assertEqual(self.client.request("GET", path)[0], 200, path)

    def test_a_refused_connection_lives_on(self):
        connection = self.client.connection()
        for key, status in ((None, 401), (self.alice, 200), ("bk-no", 401)):
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
            connection.request("POST", COMPLETIONS, json.dumps(small("")), headers)
            response = connection.getresponse()
            response.read()
            self.assertEqual(response.status, status)
            self.assertEqual(response.getheader("Connection"), "keep-alive")
        connection.close()

    def test_the_openai_client(self):
        import openai
        base = f"http://{self.ready['http']}/v1"
        good = openai.OpenAI(base_url=base, api_key=self.alice)
        model = good.models.list().data[0].id
        self.assertTrue(good.completions.create(model=model, prompt="Hi", max_tokens=2).choices)
        with self.assertRaises(openai.AuthenticationError):
            openai.OpenAI(base_url=base, api_key="bk-no").models.list()
        with self.assertRaises(openai.PermissionDeniedError):
            openai.OpenAI(base_url=base, api_key=self.gone).models.list()
        slow = openai.OpenAI(base_url=base, api_key=self.slow, max_retries=0)
        with self.assertRaises(openai.RateLimitError) as raised:
            for _ in range(2):
                slow.completions.create(model=model, prompt="Hi", max_tokens=2)
        self.assertGreater(int(raised.exception.response.headers["Retry-After"]), 30)

    def test_limits_of_a_key(self):
        self.assertEqual(self.ask(self.poor, ignore_eos=True, max_tokens=20)[0], 200)
        self.assert_error(self.ask(self.poor), 429, "insufficient_quota")
        connection = self.client.connection()
        connection.request("POST", COMPLETIONS,
                           json.dumps(small("", stream=True, max_tokens=4000, ignore_eos=True)),
                           {"Content-Type": "application/json",
                            "Authorization": f"Bearer {self.narrow}"})
        response = connection.getresponse()
        self.assertEqual(response.status, 200)
        self.assert_error(self.ask(self.narrow), 429, "rate_limit_exceeded")
        response.close()
        connection.close()
        wait_until(lambda: self.ask(self.narrow)[0] == 200, 30, "the slot is free again")
        used = self.client.series_sum("baton_key_tokens_total", key="poor")
        self.assertEqual(used, 23)

    def test_tenants_do_not_share_prefixes(self):
        prompt = [7] * 200

        def cached(key):
            status, answer = self.ask(key, prompt=prompt, max_tokens=1, return_stats=True,
                                      cache_salt="mine")
            self.assertEqual(status, 200, answer)
            return answer["baton"]["cached_prompt_tokens"]
        self.assertEqual(cached(self.alice), 0)
        self.assertGreater(cached(self.carol), 0)
        self.assertEqual(cached(self.bob), 0)

    def test_grpc(self):
        request = baton_proto.generate_request(tokens=[5, 6], sampling={"max_tokens": 2})

        def generate(key):
            metadata = [("authorization", f"Bearer {key}")] if key else []
            return list(self.client.stub.Generate(request, timeout=60, metadata=metadata))
        self.assertEqual(generate(self.alice)[-1].finish.output_tokens, 2)
        for key, code in ((None, grpc.StatusCode.UNAUTHENTICATED),
                          (self.gone, grpc.StatusCode.PERMISSION_DENIED)):
            with self.assertRaises(grpc.RpcError) as raised:
                generate(key)
            self.assertEqual(raised.exception.code(), code)
        with self.assertRaises(grpc.RpcError) as raised:
            self.client.fleet()
        self.assertEqual(raised.exception.code(), grpc.StatusCode.UNAUTHENTICATED)

    def test_keys_come_and_go_without_a_restart(self):
        key = self.add("late")
        wait_until(lambda: self.ask(key)[0] == 200, 30, "the new key is known")
        self.command("revoke", "late")
        wait_until(lambda: self.ask(key)[0] == 403, 30, "the revoked key is refused")


class LimitsTest(unittest.TestCase):
    """A router with small limits, over one worker."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()
        _, worker = cls.cluster.start_worker("decode", "decode-0", max_sequences=4)
        cls.cluster.start_router([worker], max_input_tokens=1000, max_total_tokens=4000,
                                 max_concurrent_requests=12, max_waiting_requests=3)
        cls.client = cls.cluster.client
        cls.cluster.wait_for_workers(1)

    @classmethod
    def tearDownClass(cls):
        cls.cluster.check_idle_for_sure()
        cls.cluster.stop()

    def test_prompts_and_answers(self):
        def refused(**more):
            status, answer = self.client.post(COMPLETIONS, small("", **more))
            self.assertEqual(status, 400, answer)
            self.assertEqual(answer["error"]["code"], "context_length_exceeded")
            return answer["error"]["message"]
        self.assertIn("1001 tokens, but the limit is 1000", refused(prompt=[5] * 1001))
        self.assertIn("together 4001, but the limit is 4000",
                      refused(prompt=[5] * 500, max_tokens=3501))

    def test_long_salts_are_refused_and_harm_nobody(self):
        status, answer = self.client.post(COMPLETIONS, small("", cache_salt="x" * 2000))
        self.assertEqual(status, 400, answer)
        self.assertIn("2000 bytes", answer["error"]["message"])
        self.assertEqual(self.client.post(COMPLETIONS, small(""))[0], 200)

    def test_overload_is_refused_before_any_work(self):
        # 5 run on the worker, 3 wait, the next is refused.
        streams = [self.client.generate(tokens=[9], sampling={"max_tokens": 3000,
                                                              "ignore_eos": True})
                   for _ in range(8)]
        threads = [threading.Thread(target=lambda s=s: self.drain(s)) for s in streams]
        for thread in threads:
            thread.start()
        wait_until(lambda: self.client.series_sum("baton_queue_requests") == 3, 60,
                   "three requests wait")
        body = small("", prompt="word " * 900)
        status, answer = self.client.post(COMPLETIONS, body)
        self.assertEqual(status, 429, answer)
        self.assertIn("3 requests wait for the fleet", answer["error"]["message"])
        with self.assertRaises(grpc.RpcError) as raised:
            list(self.client.generate(tokens=[5]))
        self.assertEqual(raised.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
        details = dict(raised.exception.trailing_metadata())["grpc-status-details-bin"]
        self.assertIn(b"google.rpc.RetryInfo", details)
        for stream in streams:
            stream.cancel()
        for thread in threads:
            thread.join()
        wait_until(lambda: self.client.post(COMPLETIONS, small(""))[0] == 200, 30, "room again")

    @staticmethod
    def drain(stream):
        try:
            for _ in stream:
                pass
        except grpc.RpcError:
            pass


if __name__ == "__main__":
    unittest.main()
