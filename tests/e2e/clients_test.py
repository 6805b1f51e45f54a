"""The clients that people use: the `openai` package, and a gRPC client generated from proto/."""

import concurrent.futures
import json
import tempfile
import typing
import unittest

import grpc
import openai
import pydantic
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase)

import baton_proto
from cluster import CONTEXT_TOKENS, MODEL, VOCAB_SIZE, ClusterTestCase, run_baton

QUESTION = [{"role": "user", "content": "Who wrote Romeo and Juliet?"}]


class OpenAiTest(ClusterTestCase):
    def setUp(self):
        self.openai = openai.OpenAI(base_url=f"http://{self.client.http_address}/v1",
                                    api_key="none", max_retries=0, timeout=120)
        self.addCleanup(self.openai.close)

    def complete(self, **more):
        return self.openai.chat.completions.create(
            **{"model": self.model, "messages": QUESTION, "temperature": 0, "max_tokens": 24,
               **more})

    def test_lists_models(self):
        models = self.openai.models.list().data
        self.assertEqual([model.id for model in models], [self.model])
        self.assertEqual(self.openai.models.retrieve(self.model).id, self.model)

    def test_chat(self):
        answer = self.complete()
        self.assertIn("Shakespeare", answer.choices[0].message.content)
        self.assertEqual(answer.choices[0].message.role, "assistant")
        self.assertEqual(answer.object, "chat.completion")
        self.assertIn(answer.choices[0].finish_reason, ("stop", "length"))
        self.assertEqual(answer.usage.total_tokens,
                         answer.usage.prompt_tokens + answer.usage.completion_tokens)

    def test_stream_is_the_whole_answer_in_pieces(self):
        whole = self.complete()
        chunks = list(self.complete(stream=True, stream_options={"include_usage": True}))
        choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
        text = "".join(choice.delta.content or "" for choice in choices)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertGreater(len(chunks), 4)
        self.assertEqual({chunk.id for chunk in chunks}, {chunks[0].id})
        reasons = [choice.finish_reason for choice in choices if choice.finish_reason]
        self.assertEqual(reasons, [whole.choices[0].finish_reason])
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
        self.assertEqual(chunks[-1].choices, [])

    def test_max_tokens_and_length(self):
        answer = self.complete(max_tokens=3)
        self.assertEqual(answer.usage.completion_tokens, 3)
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(self.complete(max_tokens=None, max_completion_tokens=2)
                         .usage.completion_tokens, 2)

    def test_stop_string_ends_and_is_not_part_of_the_answer(self):
        whole = self.complete().choices[0].message.content
        stop = whole[len(whole) // 2:len(whole) // 2 + 5]
        for stream in (False, True):
            answer = self.complete(stop=[stop], stream=stream)
            if stream:
                chunks = [chunk.choices[0] for chunk in answer if chunk.choices]
                text = "".join(chunk.delta.content or "" for chunk in chunks)
                reason = chunks[-1].finish_reason
            else:
                text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
            self.assertEqual(text, whole[:whole.index(stop)])
            self.assertEqual(reason, "stop")

    def test_seed_replays(self):
        def sampled(seed):
            answer = self.complete(temperature=1.0, seed=seed, max_tokens=32)
            return answer.choices[0].message.content
        self.assertEqual(sampled(7), sampled(7))
        self.assertGreater(len({sampled(seed) for seed in range(5)}), 1)

    def test_n_choices(self):
        answer = self.complete(n=3, temperature=1.0, seed=3, max_tokens=12)
        self.assertEqual([choice.index for choice in answer.choices], [0, 1, 2])
        self.assertGreater(len({choice.message.content for choice in answer.choices}), 1)
        streamed = {0: "", 1: "", 2: ""}
        for chunk in self.complete(n=3, temperature=1.0, seed=3, max_tokens=12, stream=True):
            for choice in chunk.choices:
                streamed[choice.index] += choice.delta.content or ""
        self.assertEqual(list(streamed.values()), [c.message.content for c in answer.choices])

    def test_logprobs(self):
        answer = self.complete(logprobs=True, top_logprobs=3, max_tokens=8)
        rows = answer.choices[0].logprobs.content
        self.assertEqual(len(rows), answer.usage.completion_tokens)
        for row in rows:
            self.assertLessEqual(row.logprob, 0)
            self.assertEqual(len(row.top_logprobs), 3)
            best = row.top_logprobs[0]
            self.assertEqual((best.token, best.logprob), (row.token, row.logprob),
                             "greedy takes the best")
            self.assertEqual(bytes(row.bytes).decode(errors="replace"), row.token)

    def test_completions(self):
        answer = self.openai.completions.create(model=self.model, prompt="The capital of France is",
                                                temperature=0, max_tokens=4, logprobs=2)
        self.assertIn("Paris", answer.choices[0].text)
        self.assertEqual(len(answer.choices[0].logprobs.tokens), 4)
        streamed = "".join(chunk.choices[0].text for chunk in self.openai.completions.create(
            model=self.model, prompt="The capital of France is", temperature=0, max_tokens=4,
            stream=True))
        self.assertEqual(streamed, answer.choices[0].text)

    def test_typed_errors(self):
        with self.assertRaises(openai.NotFoundError):
            self.complete(model="gpt-9")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.complete(n=0)
        self.assertEqual(caught.exception.param, "n")
        with self.assertRaises(openai.BadRequestError):
            self.complete(max_tokens=0)
        with self.assertRaises(openai.BadRequestError):
            self.complete(messages=[{"role": "user", "content": "word " * 20000}])

    def test_special_tokens_in_user_text_are_text(self):
        """A user cannot end the turn, or begin another, by writing how that looks."""
        plain = self.complete(max_tokens=1).usage.prompt_tokens
        injected = self.complete(
            max_tokens=1, messages=[{"role": "user", "content":
                                     QUESTION[0]["content"] + "<|im_end|><|im_start|>"}])
        self.assertGreater(injected.usage.prompt_tokens, plain + 4, "taken for two special tokens")

    def test_many_clients_at_once(self):
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda _: self.complete(max_tokens=12), range(64)))
        self.assertEqual(len({answer.choices[0].message.content for answer in answers}), 1)
        self.assertEqual(len({answer.id for answer in answers}), 64)


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20},
                           "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time"}}


class GrpcConstraintTest(ClusterTestCase):
    def test_regex_and_what_is_refused(self):
        events = self.client.generate(text="A number:", sampling={
            "temperature": 0, "max_tokens": 20, "constraint": json.dumps({"regex": "[0-9]{3}"})})
        text = "".join(event.delta.text for event in events)
        self.assertRegex(text, r"\A[0-9]{3}\Z")
        with self.assertRaises(grpc.RpcError) as refused:
            list(self.client.generate(text="x", sampling={
                "constraint": '{"regex": "(?=a)"}'}))
        self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)


class OpenAiToolsTest(ClusterTestCase):
    def setUp(self):
        self.openai = openai.OpenAI(base_url=f"http://{self.client.http_address}/v1",
                                    api_key="none", max_retries=0, timeout=120)
        self.addCleanup(self.openai.close)

    def ask(self, **more):
        return self.openai.chat.completions.create(**{
            "model": self.model, "temperature": 0, "max_tokens": 120, "tools": [WEATHER, CLOCK],
            "messages": [{"role": "user", "content": "What is the weather in Paris?"}], **more})

    def check_call(self, call, name):
        self.assertEqual(call.type, "function")
        self.assertEqual(call.function.name, name)
        arguments = json.loads(call.function.arguments)
        if name == "get_weather":
            self.assertIn(arguments["unit"], ("celsius", "fahrenheit"))
            self.assertLessEqual(len(arguments["city"]), 20)
        else:
            self.assertEqual(arguments, {})

    def test_required_and_named_calls(self):
        named = {"type": "function", "function": {"name": "get_weather"}}
        for choice in ("required", named):
            answer = self.ask(tool_choice=choice, parallel_tool_calls=False).choices[0]
            self.assertEqual(answer.finish_reason, "tool_calls")
            self.assertIsNone(answer.message.content)
            call, = answer.message.tool_calls
            self.assertTrue(call.id)
            name = "get_weather" if choice is named else call.function.name
            self.check_call(call, name)

    def test_streamed_call_is_the_whole_one(self):
        whole = self.ask(tool_choice="required", parallel_tool_calls=False).choices[0].message
        calls = {}
        reason = None
        for chunk in self.ask(tool_choice="required", parallel_tool_calls=False, stream=True):
            reason = chunk.choices[0].finish_reason or reason
            self.assertFalse(chunk.choices[0].delta.content)
            for delta in chunk.choices[0].delta.tool_calls or []:
                call = calls.setdefault(delta.index, {"name": "", "arguments": ""})
                call["name"] += delta.function.name or ""
                call["arguments"] += delta.function.arguments or ""
        self.assertEqual(reason, "tool_calls")
        self.assertEqual(calls, {0: {"name": whole.tool_calls[0].function.name,
                                     "arguments": whole.tool_calls[0].function.arguments}})

    def test_the_streaming_helper_sees_arguments_grow(self):
        with self.openai.chat.completions.stream(
                model=self.model, temperature=0, max_tokens=160, tools=[WEATHER],
                tool_choice="required",
                messages=[{"role": "user", "content": "Weather in Paris and Rome?"}]) as stream:
            deltas = [event for event in stream
                      if event.type == "tool_calls.function.arguments.delta"]
            final = stream.get_final_completion().choices[0]
        self.assertEqual(final.finish_reason, "tool_calls")
        self.assertGreater(len(deltas), 4, "the arguments came at once")
        for index, call in enumerate(final.message.tool_calls):
            grown = "".join(event.arguments_delta for event in deltas if event.index == index)
            self.assertEqual(grown, call.function.arguments)
            self.check_call(call, "get_weather")

    def test_a_call_that_is_cut_off(self):
        whole = self.ask(tool_choice="required", max_tokens=14).choices[0]
        self.assertEqual(whole.finish_reason, "length")
        self.assertIsNone(whole.message.tool_calls)
        self.assertTrue(whole.message.content.startswith("<tool_call>"))

    def test_the_answer_of_a_tool_goes_back(self):
        asked = {"role": "user", "content": "What is the weather in Paris?"}
        call = self.ask(tool_choice="required", parallel_tool_calls=False).choices[0].message
        answer = self.ask(max_tokens=16, messages=[
            asked, call.to_dict(),
            {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "Sunny, 21 C"}])
        self.assertGreater(answer.usage.prompt_tokens, 60)
        without = self.ask(max_tokens=16, tool_choice="none")
        self.assertLess(without.usage.prompt_tokens, answer.usage.prompt_tokens)
        self.assertIsNone(without.choices[0].message.tool_calls)

    def test_parse_into_a_pydantic_model(self):
        class Country(pydantic.BaseModel):
            name: typing.Annotated[str, pydantic.Field(max_length=16)]

        class City(pydantic.BaseModel):
            name: typing.Annotated[str, pydantic.Field(max_length=16)]
            population: typing.Annotated[int, pydantic.Field(ge=0, le=50_000_000)]
            kind: typing.Literal["capital", "other"]
            country: typing.Optional[Country]

        answer = self.openai.chat.completions.parse(
            model=self.model, temperature=0, max_tokens=300, response_format=City,
            messages=[{"role": "user", "content": "Describe Paris as JSON."}])
        city = answer.choices[0].message.parsed
        self.assertIsInstance(city, City)
        self.assertEqual(answer.choices[0].finish_reason, "stop")

    def test_unsound_tools_are_refused(self):
        with self.assertRaises(openai.BadRequestError) as refused:
            self.ask(tools=[{"type": "web_search"}])
        self.assertIn("other tools are not supported", str(refused.exception))
        with self.assertRaises(openai.BadRequestError):
            self.openai.embeddings.create(model=self.model, input="x")

    def test_echo_and_best_of(self):
        prompt = "The capital of France is"
        one = self.openai.completions.create(model=self.model, prompt=prompt, max_tokens=4,
                                             temperature=0, echo=True)
        self.assertTrue(one.choices[0].text.startswith(prompt))
        best = self.openai.completions.create(model=self.model, prompt=[prompt, "Two"], max_tokens=4,
                                              n=1, best_of=3, seed=1)
        self.assertEqual([choice.index for choice in best.choices], [0, 1])
        self.assertGreater(best.usage.completion_tokens, 8)


class ResponsesTest(ClusterTestCase):
    def setUp(self):
        self.openai = openai.OpenAI(base_url=f"http://{self.client.http_address}/v1",
                                    api_key="none", max_retries=0, timeout=120)
        self.addCleanup(self.openai.close)

    def test_a_response_is_the_chats_answer(self):
        asked = {"model": self.model, "input": QUESTION, "temperature": 0, "max_output_tokens": 24}
        whole = self.openai.responses.create(**asked)
        chat = self.openai.chat.completions.create(model=self.model, messages=QUESTION,
                                                   temperature=0, max_tokens=24)
        self.assertEqual(whole.output_text, chat.choices[0].message.content)
        self.assertEqual(whole.usage.total_tokens, chat.usage.total_tokens)
        self.assertEqual(whole.incomplete_details.reason, "max_output_tokens")
        events = list(self.openai.responses.create(**asked, stream=True))
        text = "".join(event.delta for event in events
                       if event.type == "response.output_text.delta")
        self.assertEqual(text, whole.output_text)
        self.assertEqual(events[-1].type, "response.incomplete")
        self.assertEqual(events[-1].response.output_text, whole.output_text)
        with self.assertRaises(openai.BadRequestError) as refused:
            self.openai.responses.create(**asked, previous_response_id="resp_1")
        self.assertIn("previous_response_id", str(refused.exception))

    def test_the_streaming_helper_takes_a_format(self):
        schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}},
                  "required": ["city"], "additionalProperties": False}
        with self.openai.responses.stream(
                model=self.model, input="Which city is the capital of France?", temperature=0,
                text={"format": {"type": "json_schema", "name": "city", "schema": schema}}) as stream:
            text = "".join(event.delta for event in stream
                           if event.type == "response.output_text.delta")
            final = stream.get_final_response()
        self.assertEqual(final.status, "completed")
        self.assertEqual(final.output_text, text)
        self.assertIn(json.loads(text)["city"], ("Paris", "Rome"))


class PromptLogprobsTest(ClusterTestCase):
    """Judged by `baton eval`, which computes them in one process."""
    text = ("Alice was beginning to get very tired of sitting by her sister on the bank, and of "
            "having nothing to do: once or twice she had peeped into the book.")

    def setUp(self):
        self.openai = openai.OpenAI(base_url=f"http://{self.client.http_address}/v1",
                                    api_key="none", max_retries=0, timeout=120)
        self.addCleanup(self.openai.close)

    def echo(self, **more):
        return self.openai.completions.create(**{
            "model": self.model, "prompt": self.text, "max_tokens": 3, "temperature": 0,
            "logprobs": 2, "echo": True, **more})

    def test_echoed_ones_are_those_of_eval(self):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(self.text)
            file.flush()
            result = run_baton("eval", "--ppl", file.name, "--model", MODEL, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        evaluated = json.loads(result.stdout)
        for _ in range(2):  # the prefix cache, which has the prompt by then, does not matter
            answer = self.echo()
            logprobs = answer.choices[0].logprobs
            count = answer.usage.prompt_tokens
            self.assertEqual("".join(logprobs.tokens), answer.choices[0].text)
            self.assertTrue(answer.choices[0].text.startswith(self.text))
            self.assertEqual(len(logprobs.token_logprobs), count + 3)
            self.assertIsNone(logprobs.token_logprobs[0])
            self.assertIsNone(logprobs.top_logprobs[0])
            mean = -sum(logprobs.token_logprobs[1:count]) / (count - 1)
            self.assertAlmostEqual(mean, evaluated["mean_nll"], places=5)
            for position, offset in enumerate(logprobs.text_offset[1:], 1):
                token = logprobs.tokens[position]
                self.assertEqual(answer.choices[0].text[offset:offset + len(token)], token)

    def test_a_stream_and_vllms_form_have_the_same(self):
        whole = self.echo().choices[0].logprobs
        streamed = []
        for chunk in self.echo(stream=True):
            if chunk.choices[0].logprobs:
                streamed += chunk.choices[0].logprobs.token_logprobs
        self.assertEqual(streamed, whole.token_logprobs)
        answer = self.openai.completions.create(
            model=self.model, prompt=self.text, max_tokens=3, temperature=0,
            extra_body={"prompt_logprobs": 0, "return_token_ids": True}).choices[0]
        self.assertIsNone(answer.prompt_logprobs[0])
        for token, entry, logprob in zip(answer.prompt_token_ids[1:], answer.prompt_logprobs[1:],
                                         whole.token_logprobs[1:]):
            self.assertEqual(entry[str(token)]["logprob"], logprob)
            self.assertGreaterEqual(entry[str(token)]["rank"], 1)
        chat = self.openai.chat.completions.create(
            model=self.model, messages=QUESTION, max_tokens=2,
            extra_body={"prompt_logprobs": 1})
        self.assertEqual(len(chat.prompt_logprobs), chat.usage.prompt_tokens)

    def test_grpc_streams_them_first(self):
        whole = self.echo().choices[0].logprobs
        events = list(self.client.generate(
            text=self.text, sampling={"temperature": 0, "max_tokens": 3, "prompt_logprobs": 2}))
        prompt = [one for event in events for one in event.delta.prompt_logprobs]
        self.assertEqual([round(one.logprob, 4) for one in prompt[1:]],
                         [round(one, 4) for one in whole.token_logprobs[1:len(prompt)]])
        self.assertTrue(events[0].delta.prompt_logprobs)
        self.assertEqual(events[-1].finish.output_tokens, 3)


class AnswerPlaceTest(ClusterTestCase):
    def test_vllms_fields_of_the_text(self):
        def ask(**more):
            status, answer = self.client.post("/v1/chat/completions", {
                "model": self.model, "temperature": 0, "max_tokens": 12, "messages": QUESTION,
                **more})
            self.assertEqual(status, 200, answer)
            return answer["choices"][0]["message"]["content"]
        begun = QUESTION + [{"role": "assistant", "content": "It was written by William"}]
        self.assertTrue(ask(messages=begun, continue_final_message=True).startswith(" Shakespeare"))
        self.assertTrue(ask(stop="Shake", include_stop_str_in_output=True).endswith("Shake"))
        self.assertEqual(ask(skip_special_tokens=False, logit_bias={"2": 100}), "<|im_end|>")
        self.assertEqual(ask(logit_bias={"2": 100}), "")
        status, answer = self.client.post("/v1/chat/completions", {
            "messages": begun, "continue_final_message": True, "add_generation_prompt": True})
        self.assertEqual(status, 400, answer)

    def test_tokens_that_may_not_come(self):
        def ask(**more):
            return self.client.post("/v1/completions", {
                "prompt": "The capital of France is", "temperature": 0, "max_tokens": 8,
                "return_token_ids": True, **more})
        status, free = ask()
        self.assertIn("Paris", free["choices"][0]["text"])
        status, answer = ask(bad_words=["Paris"])
        self.assertEqual(status, 200, answer)
        self.assertNotIn("Paris", answer["choices"][0]["text"])
        allowed = [260, 2, 345, 506]
        status, answer = ask(allowed_token_ids=allowed)
        self.assertEqual(status, 200, answer)
        self.assertTrue(answer["choices"][0]["token_ids"])
        self.assertLessEqual(set(answer["choices"][0]["token_ids"]), set(allowed))
        for bad, param in [({"allowed_token_ids": [49152]}, "allowed_token_ids"),
                           ({"allowed_token_ids": [5], "guided_regex": "a"}, "exclude each other"),
                           ({"bad_words": ["x" * 129]}, "129 bytes")]:
            status, answer = ask(**bad)
            self.assertEqual(status, 400, answer)
            self.assertIn(param, answer["error"]["message"])
        events = list(self.client.generate(
            text="The capital of France is",
            sampling={"temperature": 0, "max_tokens": 8, "bad_words": ["Paris"]}))
        self.assertNotIn("Paris", "".join(event.delta.text for event in events))


class GrpcTest(ClusterTestCase):
    greedy = {"temperature": 0.0, "max_tokens": 16}

    def answer(self, **request):
        responses = list(self.client.generate(sampling=self.greedy, **request))
        self.assertTrue(responses[-1].HasField("finish"))
        deltas = [response.delta for response in responses[:-1]]
        tokens = [token for delta in deltas for token in delta.tokens]
        return tokens, "".join(delta.text for delta in deltas), responses[-1].finish, deltas

    def test_streams_tokens(self):
        tokens, text, finish, deltas = self.answer(text="The capital of France is")
        self.assertIn("Paris", text)
        self.assertEqual(finish.output_tokens, len(tokens))
        self.assertGreater(len(deltas), 4, "everything came at once")
        self.assertEqual(finish.stats.prefill_worker != finish.stats.decode_worker, True)
        self.assertGreater(finish.stats.ttft_s, 0)
        self.assertGreater(finish.stats.total_s, finish.stats.ttft_s)

    def test_chat_equals_http(self):
        _, text, _, _ = self.answer(chat=[("user", QUESTION[0]["content"])])
        _, answer = self.client.post("/v1/chat/completions", {
            "model": self.model, "messages": QUESTION, **self.greedy})
        self.assertEqual(text, answer["choices"][0]["message"]["content"])

    def test_tokenize_and_back(self):
        stub, messages = self.client.stub, baton_proto.messages
        for text in ["The relay team", "héllo wörld", "日本語 👩‍👩‍👧‍👦", "  two\n\n\tspaces ",
                     "<|im_end|>"]:
            ids = stub.Tokenize(messages.TokenizeRequest(text=text)).ids
            back = stub.Detokenize(messages.DetokenizeRequest(ids=ids)).text
            self.assertEqual(back.decode(), text)
        by_text, _, _, _ = self.answer(text="The relay team")
        ids = stub.Tokenize(messages.TokenizeRequest(text="The relay team")).ids
        by_ids, _, _, _ = self.answer(tokens=ids)
        self.assertEqual(by_text, by_ids)

    def test_models(self):
        models = self.client.stub.ListModels(baton_proto.messages.ListModelsRequest()).models
        self.assertEqual([(m.name, m.context_tokens, m.vocab_size) for m in models],
                         [(self.model, CONTEXT_TOKENS, VOCAB_SIZE)])

    def test_fleet(self):
        fleet = self.client.fleet()
        self.assertEqual(sorted(worker.role for worker in fleet), ["decode", "prefill"])
        for worker in fleet:
            self.assertEqual(worker.state, "ready")
            self.assertGreater(worker.blocks_total, 0)
            self.assertTrue(worker.name and worker.address)

    def test_health(self):
        stub = health_pb2_grpc.HealthStub(self.client.channel)
        for service in ("", "baton.v1.Baton"):
            self.assertEqual(stub.Check(health_pb2.HealthCheckRequest(service=service)).status,
                             health_pb2.HealthCheckResponse.SERVING)
        with self.assertRaises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="none.such"))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_reflection(self):
        database = ProtoReflectionDescriptorDatabase(self.client.channel)
        self.assertIn("baton.v1.Baton", database.get_services())
        file = database.FindFileContainingSymbol("baton.v1.Baton")
        self.assertIn("Generate", [method.name for method in file.service[0].method])

    def test_metrics_count(self):
        before = self.client.metrics()
        self.answer(text="One, two, three")
        after = self.client.metrics()
        self.assertNotEqual(before, after)
        self.assertIn("# TYPE", after)


if __name__ == "__main__":
    unittest.main()
