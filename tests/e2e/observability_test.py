"""Access log, traces, timelines, dashboards, `baton top` and the admin API's keys and TLS."""

import http.client
import http.server
import json
import os
import pathlib
import pty
import re
import select
import signal
import ssl
import subprocess
import tempfile
import threading
import time
import unittest

import grpc

import baton_proto
from certificates import Authority
from cluster import BATON, Cluster, environment, run_baton, wait_until

CHAT = "/v1/chat/completions"
ROOT = pathlib.Path(__file__).resolve().parents[2]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
# What opentelemetry-proto's trace.proto has, in JSON's spelling.
SPAN_FIELDS = {"traceId", "spanId", "parentSpanId", "traceState", "flags", "name", "kind",
               "startTimeUnixNano", "endTimeUnixNano", "attributes", "droppedAttributesCount",
               "events", "droppedEventsCount", "links", "droppedLinksCount", "status"}
STAGES = ["tokenized", "placed", "prefill_started", "handoff_offered", "first_chunk",
          "prefill_finished", "first_token", "last_token", "ended"]


class Collector:
    """As far as a test needs a trace collector: keeps the spans that are posted."""

    def __init__(self):
        spans = self.spans = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/v1/traces", self.path
                assert self.headers["Content-Type"] == "application/json"
                for resource in body["resourceSpans"]:
                    for scope in resource["scopeSpans"]:
                        spans.extend(scope["spans"])
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def of(self, trace):
        return [span for span in list(self.spans) if span["traceId"] == trace]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class ObservabilityTest(unittest.TestCase):
    """One prefill and one decode worker; the admin API has TLS of its own, and keys."""

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix="baton-observability-")
        directory = pathlib.Path(cls.directory.name)
        cls.log = directory / "access.log"
        cls.authority = Authority()
        certificate, key = cls.authority.issue("admin")
        added = run_baton("keys", "add", "operator", "--keys-file", directory / "admin.yaml")
        cls.key = added.stdout.strip()
        cls.collector = Collector()
        cls.cluster = cluster = Cluster()
        _, prefill = cluster.start_worker("prefill", "p0")
        _, decode = cluster.start_worker("decode", "d0")
        cls.router = cluster.start_router(
            [prefill, decode], admin="127.0.0.1:0", admin_tls_cert=certificate, admin_tls_key=key,
            admin_keys_file=directory / "admin.yaml", access_log=cls.log,
            otlp_endpoint=cls.collector.url)
        cls.ready = cls.router.wait_ready()
        cls.client = cluster.client
        cluster.wait_for_workers(2)
        cls.admin_flags = ["--admin", "https://" + cls.ready["admin"], "--ca", cls.authority.ca,
                           "--admin-key", cls.key]

    @classmethod
    def tearDownClass(cls):
        with cls.cluster:
            pass
        cls.collector.close()
        cls.authority.close()
        cls.directory.cleanup()

    def ask(self, request_id, headers=None, **more):
        body = {"messages": [{"role": "user", "content": "Tell me of the sea, and of ships."}],
                "max_tokens": 6, "temperature": 0, "ignore_eos": True, **more}
        return self.client.request("POST", CHAT, body,
                                   headers={"X-Request-Id": request_id, **(headers or {})})

    def lines(self, request_id, count=1):
        def found():
            all_lines = [json.loads(line) for line in self.log.read_text().splitlines()]
            return [line for line in all_lines if line["request_id"] == request_id]
        wait_until(lambda: len(found()) >= count, 20, f"{count} lines of {request_id}")
        return found()

    def admin(self, path, key=None, context=None):
        """(status, body)"""
        context = context or ssl.create_default_context(cafile=self.authority.ca)
        connection = http.client.HTTPSConnection(self.ready["admin"], context=context, timeout=60)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        return response.status, body

    def test_a_request_has_a_line_with_every_stage(self):
        before = time.time()
        status, answer = self.ask("line-1")
        self.assertEqual(status, 200, answer)
        line, = self.lines("line-1")
        self.assertEqual((line["status"], line["code"], line["finish_reason"]),
                         (200, "OK", "length"))
        self.assertEqual(line["endpoint"], CHAT)
        self.assertEqual(line["model"], self.cluster.model)
        self.assertEqual(line["input_tokens"], answer["usage"]["prompt_tokens"])
        self.assertEqual((line["output_tokens"], line["max_tokens"]), (6, 6))
        self.assertEqual((line["prefill_worker"], line["decode_worker"]), ("p0", "d0"))
        self.assertEqual((line["decode_steps"], line["migrations"]), (5, 0))
        self.assertEqual(line["prefill_chunks"], 1)
        self.assertTrue(line["transport"])
        self.assertGreater(line["kv_bytes"], 0)
        self.assertTrue(before - 1 < line["arrival_us"] / 1e6 < time.time() + 1)
        stages = line["stages"]
        times = [stages[name] for name in STAGES]
        self.assertEqual(times, sorted(times), stages)
        self.assertLessEqual(stages["handoff_granted"], stages["handoff_finished"])
        self.assertLessEqual(stages["handoff_finished"], stages["decode_started"])
        self.assertLessEqual(stages["decode_started"], stages["last_token"])
        self.assertEqual((line["ttft_s"], line["e2e_s"]),
                         (stages["first_token"], stages["ended"]))
        self.assertGreater(line["itl_s"], 0)
        again = self.ask("line-2")[1]
        cached = self.lines("line-2")[0]["cached_tokens"]
        self.assertGreaterEqual(cached, 16)
        self.assertEqual(cached, again["usage"]["prompt_tokens_details"]["cached_tokens"])

    def test_choices_refusals_and_calls_without_a_worker_have_lines(self):
        self.assertEqual(self.ask("choices", n=2, temperature=1)[0], 200)
        self.assertEqual(sorted(line["choice"] for line in self.lines("choices", 2)), [0, 1])
        self.assertEqual(self.ask("refused", top_p=7)[0], 400)
        refused, = self.lines("refused")
        self.assertEqual((refused["status"], refused["code"]), (400, "INVALID_ARGUMENT"))
        self.assertIn("top_p", refused["error"])
        self.assertNotIn("input_tokens", refused)
        self.client.request("POST", "/tokenize", {"prompt": "Hello"},
                            headers={"X-Request-Id": "tokens"})
        self.assertEqual(self.lines("tokens")[0]["endpoint"], "/tokenize")

    def test_a_client_that_leaves_is_499(self):
        connection = self.client.connection()
        body = {"prompt": "Tell", "max_tokens": 800, "ignore_eos": True, "stream": True}
        connection.request("POST", "/v1/completions", json.dumps(body),
                           {"Content-Type": "application/json", "X-Request-Id": "gone"})
        connection.getresponse().read(20)
        connection.close()
        line, = self.lines("gone")
        self.assertEqual((line["status"], line["code"]), (499, "CANCELLED"))
        self.assertNotIn("finish_reason", line)

    def test_grpc_calls_have_lines_ids_and_traces(self):
        trace = "1" * 32
        request = baton_proto.generate_request(text="Hello", sampling={"max_tokens": 3})
        with grpc.insecure_channel(self.ready["grpc"]) as channel:
            call = baton_proto.stub(channel).Generate(
                request, timeout=60, metadata=[("x-request-id", "grpc-1"),
                                               ("traceparent", f"00-{trace}-{'2' * 16}-01")])
            list(call)
            told = dict(call.initial_metadata())
        self.assertEqual(told["x-request-id"], "grpc-1")
        self.assertTrue(told["traceparent"].startswith(f"00-{trace}-"))
        line, = self.lines("grpc-1")
        self.assertEqual((line["endpoint"], line["trace_id"]), ("baton.v1.Baton/Generate", trace))
        wait_until(lambda: self.collector.of(trace), 20, "its spans")

    def test_spans_are_exported_as_the_protocol_says(self):
        connection = self.client.connection()
        body = {"prompt": "Tell me of the sea.", "max_tokens": 4, "ignore_eos": True}
        connection.request("POST", "/v1/completions", json.dumps(body),
                           {"Content-Type": "application/json", "traceparent": PARENT,
                            "tracestate": "a=1", "X-Request-Id": "traced"})
        response = connection.getresponse()
        response.read()
        connection.close()
        _, trace, span_id, flags = response.getheader("traceparent").split("-")
        self.assertEqual((trace, flags), (PARENT.split("-")[1], "01"))
        wait_until(lambda: len(self.collector.of(trace)) >= 6, 20, "the spans")
        spans = self.collector.of(trace)
        for span in spans:
            self.assertLessEqual(set(span), SPAN_FIELDS)
            self.assertRegex(span["spanId"], "^[0-9a-f]{16}$")
            self.assertLessEqual(int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"]))
            for attribute in span.get("attributes", []):
                self.assertEqual(set(attribute), {"key", "value"})
                self.assertEqual(len(attribute["value"]), 1)
        call, = [span for span in spans if span["name"] == "POST /v1/completions"]
        self.assertEqual((call["spanId"], call["parentSpanId"], call["kind"]),
                         (span_id, PARENT.split("-")[2], 2))
        self.assertEqual(call["traceState"], "a=1")
        parts = {span["name"]: span for span in spans if span is not call}
        self.assertEqual(set(parts), {"tokenize", "queue", "prefill queue", "prefill", "handoff",
                                      "decode"})
        for part in parts.values():
            self.assertEqual(part["parentSpanId"], span_id)
            self.assertGreaterEqual(int(part["startTimeUnixNano"]),
                                    int(call["startTimeUnixNano"]))
            self.assertLessEqual(int(part["endTimeUnixNano"]), int(call["endTimeUnixNano"]))
        line, = self.lines("traced")
        self.assertEqual(line["trace_id"], trace)

    def test_a_callers_decision_not_to_sample_is_kept(self):
        trace = "3" * 32
        self.assertEqual(self.ask("quiet", {"traceparent": f"00-{trace}-{'4' * 16}-00"})[0], 200)
        self.assertEqual(self.lines("quiet")[0]["trace_id"], trace)
        self.assertEqual(self.ask("loud")[0], 200)
        loud = self.lines("loud")[0]["trace_id"]
        wait_until(lambda: self.collector.of(loud), 20, "the spans of a later request")
        self.assertEqual(self.collector.of(trace), [])

    def test_the_log_is_opened_again(self):
        self.ask("before")
        self.lines("before")
        moved = self.log.with_suffix(".1")
        os.rename(self.log, moved)
        self.router.send_signal(signal.SIGHUP)
        wait_until(self.log.exists, 20, "a new file")
        self.ask("after")
        self.assertEqual(len(self.lines("after")), 1)
        self.assertIn('"before"', moved.read_text())
        self.assertNotIn('"after"', moved.read_text())

    def test_timelines_of_live_and_recent_requests(self):
        self.ask("recent/1")
        status, body = self.admin("/debug/requests/recent%2F1", self.key)
        self.assertEqual(status, 200, body)
        self.assertEqual(json.loads(body)["requests"][0]["finish_reason"], "length")
        connection, events = self.client.open_stream("/v1/completions", {
            "prompt": "Tell", "max_tokens": 1500, "ignore_eos": True})
        next(events)
        listed = json.loads(self.admin("/debug/requests?limit=5", self.key)[1])
        live = [one for one in listed["live"] if one["state"] == "decode"]
        self.assertEqual(len(live), 1, listed["live"])
        self.assertLess(live[0]["output_tokens"], 1500)
        self.assertIn("first_token", live[0]["stages"])
        self.assertLessEqual(len(listed["recent"]), 5)
        connection.close()
        self.assertEqual(self.admin("/debug/requests/no-such", self.key)[0], 404)

    def test_the_admin_api_wants_a_key_and_tls(self):
        for path in ("/v1/workers", "/metrics", "/debug/requests"):
            self.assertEqual(self.admin(path)[0], 401, path)
            self.assertEqual(self.admin(path, "bk-" + "x" * 43)[0], 401, path)
            self.assertEqual(self.admin(path, self.key)[0], 200, path)
        self.assertEqual(self.admin("/health")[0], 200)
        with self.assertRaises(ssl.SSLError):
            self.admin("/health", context=ssl.create_default_context())
        plain = http.client.HTTPConnection(self.ready["admin"], timeout=60)
        plain.request("GET", "/health")
        with self.assertRaises((http.client.HTTPException, ConnectionError)):
            plain.getresponse()
        plain.close()

    def test_drain_with_a_key_and_a_ca(self):
        refused = run_baton("drain", "p0", *self.admin_flags[:-2])
        self.assertEqual(refused.returncode, 1)
        self.assertIn("needs an API key", refused.stderr)
        for more, state in ((), "drained"), (("--undo",), "ready"):
            told = run_baton("drain", "p0", "--json", *more, *self.admin_flags)
            self.assertEqual(told.returncode, 0, told.stderr)
            self.assertEqual(json.loads(told.stdout)["state"], state)

    def test_top_once_and_as_json(self):
        self.ask("top")
        told = run_baton("top", "--once", "--interval", "0.2", *self.admin_flags)
        self.assertEqual(told.returncode, 0, told.stderr)
        for word in ("p0", "d0", "requests/s", "first token", self.cluster.model):
            self.assertIn(word, told.stdout)
        self.assertNotIn("\033", told.stdout)
        told = run_baton("top", "--json", "--interval", "0.2", *self.admin_flags)
        view = json.loads(told.stdout)
        self.assertEqual({worker["name"]: worker["role"] for worker in view["workers"]},
                         {"p0": "prefill", "d0": "decode"})
        self.assertGreater(view["latency"]["first_token"]["count"], 0)
        for refused in (["top"], ["top", "--once", "--admin", "127.0.0.1:1"]):
            told = run_baton(*refused)
            self.assertEqual(told.returncode, 1)
            self.assertTrue(told.stderr.startswith("baton: "), told.stderr)

    def test_top_in_a_terminal(self):
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(BATON, [str(BATON), "top", "--interval", "0.2", *map(str, self.admin_flags)],
                      environment())
        shown = b""

        def read_until(text, deadline=time.monotonic() + 60):
            nonlocal shown
            while text not in shown and time.monotonic() < deadline:
                if select.select([terminal], [], [], 1)[0]:
                    try:
                        shown += os.read(terminal, 65536)
                    except OSError:  # it has ended
                        break
            self.assertIn(text, shown)

        read_until(b"\033[?1049h")
        read_until(b"q quits")
        self.assertIn(b"decode", shown)
        os.write(terminal, b"q")
        read_until(b"\033[?1049l")
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
        os.close(terminal)

    def test_dashboard_and_alerts_name_what_there_is(self):
        self.ask("dashboard")
        wait_until(lambda: "baton_kv_path_in_use" in self.client.metrics(), 20, "the path is told")
        kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)$", self.client.metrics(), re.M))
        kinds["baton_discovery_current"] = "gauge"  # of routers that discover workers
        for file in ("deploy/grafana/baton.json", "deploy/prometheus/alerts.yaml"):
            text = (ROOT / file).read_text()
            names = set(re.findall(r"\b(?:vllm:|baton_)[a-z0-9_]+", text))
            self.assertGreater(len(names), 5, file)
            for name in names:
                family = re.sub("_(bucket|sum|count)$", "", name)
                histogram = kinds.get(family) == "histogram" and name != family
                self.assertTrue(histogram or name in kinds, f"{file} names {name}")
        for panel in json.loads((ROOT / "deploy/grafana/baton.json").read_text())["panels"]:
            self.assertTrue(panel["title"] and panel["targets"])

    def test_every_metric_is_documented(self):
        documented = (ROOT / "docs/observability.md").read_text()
        for name in re.findall(r"^# TYPE (\S+)", self.client.metrics(), re.M):
            self.assertIn(f"`{name}`", documented)

    def test_lost_lines_and_spans_are_counted(self):
        self.ask("counted")
        self.lines("counted")
        written = self.client.series_sum("baton_access_log_lines_total", result="written")
        self.assertGreater(written, 0)
        self.assertEqual(self.client.series_sum("baton_access_log_lines_total", result="dropped"),
                         0)
        wait_until(lambda: self.client.series_sum("baton_trace_spans_total", result="exported") > 0,
                   20, "spans are counted")


class AlertsTest(unittest.TestCase):
    def promtool(self, *arguments):
        done = subprocess.run(["promtool", *arguments], cwd=ROOT, capture_output=True, text=True,
                              timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_rules_fire_when_they_should_and_only_then(self):
        self.promtool("check", "rules", "deploy/prometheus/alerts.yaml")
        self.promtool("test", "rules", "tests/e2e/alerts_test.yaml")
        rules = set(re.findall(r"alert: (\w+)", (ROOT / "deploy/prometheus/alerts.yaml").read_text()))
        tested = re.findall(r"alertname: (\w+)\n +exp_alerts",
                            (ROOT / "tests/e2e/alerts_test.yaml").read_text())
        self.assertEqual(rules, set(tested), "each rule has a case in which it fires")

    def test_the_dashboards_expressions_are_promql(self):
        dashboard = json.loads((ROOT / "deploy/grafana/baton.json").read_text())
        rules = [{"record": f"panel:{number}", "expr": target["expr"].replace(
                      "$__rate_interval", "5m")}
                 for number, target in enumerate(
                     target for panel in dashboard["panels"] for target in panel["targets"])]
        self.assertGreater(len(rules), 20)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)  # JSON is YAML
            file.flush()
            self.promtool("check", "rules", file.name)


class AdminFlagsTest(unittest.TestCase):
    def refused(self, *flags):
        told = run_baton("router", "--model", "x.gguf", "--workers", "127.0.0.1:1", *flags)
        self.assertEqual(told.returncode, 1, told.stderr)
        return told.stderr

    def test_what_is_not_safe_is_refused(self):
        self.assertIn("--admin-tls-cert", self.refused("--admin", "0.0.0.0:0"))
        with tempfile.TemporaryDirectory(prefix="baton-admin-") as directory:
            authority = Authority()
            certificate, key = authority.issue("admin")
            tls = ("--admin-tls-cert", certificate, "--admin-tls-key", key)
            self.assertIn("--admin-keys-file", self.refused("--admin", "0.0.0.0:0", *tls))
            self.assertIn("only --admin turns on", self.refused(*tls))
            self.assertIn("--admin-tls-key", self.refused("--admin", "127.0.0.1:0", *tls[:2]))
            missing = str(pathlib.Path(directory) / "none.yaml")
            self.assertIn("only --admin turns on", self.refused("--admin-keys-file", missing))
            authority.close()
        self.assertIn("--otlp-endpoint", self.refused("--otlp-endpoint", "nonsense"))
        self.assertIn("cannot be opened", self.refused("--access-log", "/proc/no/such.log"))


if __name__ == "__main__":
    unittest.main()
