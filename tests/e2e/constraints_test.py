"""Constrained answers: what comes satisfies the constraint, wherever its tokens are sampled, and is
what one process gives for it."""

import concurrent.futures
import json
import re
import tempfile
import unittest

from cluster import MODEL, ClusterTestCase, reference, run_baton

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["kind", "tall", "old"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
}
REGEX = r"(red|green|blue): \d{2,4}(, [a-f]{1,4})?"


def is_person(text):
    value = json.loads(text)
    return (list(value) == ["name", "age", "tags"] and len(value["name"]) <= 12
            and isinstance(value["age"], int) and 0 <= value["age"] <= 120
            and set(value["tags"]) <= {"kind", "tall", "old"} and len(value["tags"]) <= 3)


# The constraint as `baton run` takes it, as HTTP clients send it, and what must hold.
CONSTRAINTS = [
    ({"json_schema": PERSON},
     {"response_format": {"type": "json_schema",
                          "json_schema": {"name": "person", "schema": PERSON}}}, is_person),
    ({"regex": REGEX}, {"guided_regex": REGEX}, lambda text: re.fullmatch(REGEX, text)),
    ({"choice": ["Paris", "Rome", "Par"]}, {"guided_choice": ["Paris", "Rome", "Par"]},
     lambda text: text in ("Paris", "Rome", "Par")),
]


class ConstraintsTest(ClusterTestCase):
    def complete(self, prompt, fields, **more):
        status, answer = self.client.post("/v1/completions", {
            "model": self.model, "prompt": prompt, "max_tokens": 200, "return_token_ids": True,
            **fields, **more})
        self.assertEqual(status, 200, answer)
        return answer["choices"][0]

    def test_hostile_constraints_change_nobodys_answer(self):
        """Refused at once, or answered beside others, whose tokens are those of one process."""
        hostile = ["(" + "[a-z ]*x|" * 4000 + "y)*z", "((a{0,40}b?){0,30}c?){0,10}",
                   "a*" * 12000 + "b", "(a|b)*a(a|b){4000}"]
        prompts = [f"Count to {number}:" for number in range(6)]
        expected = reference([{"prompt": prompt, "sampling": {"temperature": 0, "max_tokens": 40}}
                              for prompt in prompts])
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            odd = [pool.submit(self.client.post, "/v1/completions", {
                "model": self.model, "prompt": "x", "max_tokens": 30, "guided_regex": regex})
                for regex in hostile]
            plain = list(pool.map(lambda prompt: self.complete(
                prompt, {}, temperature=0, max_tokens=40), prompts))
        for answer, right in zip(plain, expected):
            self.assertEqual(answer["token_ids"], right["output_tokens"])
        for answer in odd:
            self.assertEqual(answer.result()[0], 200, answer.result()[1])
        status, answer = self.client.post("/v1/completions", {
            "model": self.model, "prompt": "x", "guided_regex": "(((a{0,5000}){0,5000})*){0,9}b"})
        self.assertEqual(status, 400, answer)
        self.assertIn("more than 60000 states", answer["error"]["message"])

    def test_cluster_equals_one_process_and_satisfies(self):
        requests, bodies, checks = [], [], []
        for seed in range(3):
            for constraint, fields, holds in CONSTRAINTS:
                prompt = f"Person number {seed}, or a color, or a city:" + " Tell me." * 20 * seed
                sampling = {"temperature": 1.2 * (seed > 0), "seed": seed, "max_tokens": 200}
                requests.append({"prompt": prompt,
                                 "sampling": {**sampling, "constraint": constraint}})
                bodies.append((prompt, fields, sampling))
                checks.append(holds)
        expected = reference(requests)
        with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
            answers = list(pool.map(lambda body: self.complete(body[0], body[1], **body[2]),
                                    bodies))
        for request, one, answer, holds in zip(requests, expected, answers, checks):
            with self.subTest(request):
                self.assertEqual(answer["token_ids"], one["output_tokens"])
                self.assertEqual(answer["finish_reason"], "stop")
                self.assertTrue(holds(answer["text"]), answer["text"])

    def test_json_object_and_logprobs(self):
        status, answer = self.client.post("/v1/chat/completions", self.chat(
            "Give me JSON.", max_tokens=60, logprobs=True, top_logprobs=3, temperature=0,
            response_format={"type": "json_object"}))
        self.assertEqual(status, 200, answer)
        choice = answer["choices"][0]
        text = choice["message"]["content"]
        self.assertTrue(text.startswith("{"), text)
        if choice["finish_reason"] == "stop":
            self.assertIsInstance(json.loads(text), dict)
        first = choice["logprobs"]["content"][0]
        self.assertTrue(all(top["token"].startswith("{") for top in first["top_logprobs"]), first)

    def test_ends_where_it_can_only_end(self):
        choice = self.complete("Say it:", {"guided_choice": ["yes"]}, ignore_eos=True,
                               min_tokens=50)
        self.assertEqual((choice["text"], choice["finish_reason"]), ("yes", "stop"))

    def test_refused_with_what_and_where(self):
        schema = {"type": "object", "properties": {"a": {"uniqueItems": True}}}
        status, answer = self.client.post("/v1/chat/completions", self.chat(guided_json=schema))
        self.assertEqual(status, 400)
        self.assertEqual(answer["error"]["param"], "guided_json")
        self.assertIn("'uniqueItems' is not supported at #/properties/a",
                      answer["error"]["message"])
        self.assert_works()

    def test_flags_of_baton_run(self):
        def run(*flags):
            return run_baton("run", "--model", MODEL, "-p", "A number:", "--temperature", "0",
                             *flags)

        self.assertRegex(run("--regex", "[0-9]{2}").stdout, r"\A[0-9]{2}\n\Z")
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump({"type": "array", "items": {"type": "integer", "maximum": 9},
                       "minItems": 2, "maxItems": 2}, file)
            file.flush()
            self.assertEqual(len(json.loads(run("--json-schema", file.name).stdout)), 2)
        refused = run("--regex", "(?=a)")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("a look-around", refused.stderr)

    def test_watermark_is_the_same_everywhere(self):
        sampling = {"temperature": 1.0, "seed": 5, "max_tokens": 40, "watermark": True}
        expected = reference([{"prompt": "Once upon a time", "sampling": sampling}])[0]
        answer = self.complete("Once upon a time", {}, **sampling)
        self.assertEqual(answer["token_ids"], expected["output_tokens"])
        plain = self.complete("Once upon a time", {}, **{**sampling, "watermark": False})
        self.assertNotEqual(plain["token_ids"], expected["output_tokens"])

    def test_tokens_and_back(self):
        status, tokens = self.client.post("/tokenize", {"prompt": "Hello, w\u00f6rld",
                                                        "return_token_strs": True})
        self.assertEqual(status, 200, tokens)
        self.assertEqual(tokens["count"], len(tokens["tokens"]))
        self.assertEqual(len(tokens["token_strs"]), tokens["count"])
        status, text = self.client.post("/detokenize", {"tokens": tokens["tokens"]})
        self.assertEqual((status, text["prompt"]), (200, "Hello, w\u00f6rld"))
        last = self.complete("A B C D E F", {"max_tokens": 1, "truncate_prompt_tokens": 2})
        self.assertEqual(len(last["prompt_token_ids"]), 2)

    def test_text_generation_inference(self):
        parameters = {"max_new_tokens": 6, "details": True}
        status, whole = self.client.post("/generate", {"inputs": "The sky is",
                                                       "parameters": parameters})
        self.assertEqual(status, 200, whole)
        self.assertEqual(len(whole["details"]["tokens"]), 6)
        self.assertEqual(whole["details"]["finish_reason"], "length")
        connection = self.client.connection()
        self.addCleanup(connection.close)
        connection.request("POST", "/generate_stream",
                           json.dumps({"inputs": "The sky is", "parameters": parameters}),
                           {"Content-Type": "application/json"})
        events = [json.loads(line[5:]) for line in
                  connection.getresponse().read().decode().splitlines()
                  if line.startswith("data:")]
        self.assertEqual([event["index"] for event in events], [1, 2, 3, 4, 5, 6])
        self.assertEqual(events[-1]["generated_text"], whole["generated_text"])
        self.assertEqual([event["token"]["id"] for event in events],
                         [token["id"] for token in whole["details"]["tokens"]])


if __name__ == "__main__":
    unittest.main()
