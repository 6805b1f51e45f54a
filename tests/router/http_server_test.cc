#include "router/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <thread>

#include "router/error_code.h"
#include "tests/router/http_test_server.h"

namespace baton::router {
namespace {

using testing::HasSubstr;

// The error of an answer in OpenAI's shape.
boost::json::object ErrorOf(const TestResponse& response) {
  boost::json::error_code error;
  const boost::json::value body = boost::json::parse(response.body, error);
  EXPECT_FALSE(error) << response.body;
  if (error || !body.is_object() || !body.as_object().contains("error")) return {};
  return body.at("error").as_object();
}

class HttpServerTest : public testing::Test {
 protected:
  void ExpectError(const TestResponse& response, int status, std::string_view code,
                   std::string_view text) {
    SCOPED_TRACE(text);
    EXPECT_EQ(response.status, status);
    const boost::json::object error = ErrorOf(response);
    ASSERT_TRUE(error.contains("message"));
    EXPECT_THAT(std::string(error.at("message").as_string()), HasSubstr(std::string(text)));
    EXPECT_TRUE(error.contains("type") && error.contains("param"));
    if (code.empty()) {
      EXPECT_TRUE(error.at("code").is_null());
    } else {
      EXPECT_EQ(std::string(error.at("code").as_string()), code);
    }
    EXPECT_TRUE(response.headers.contains("x-request-id"));
  }

  ScriptedDispatcher dispatcher_;
  std::unique_ptr<HttpServer> server_ = Serve(&dispatcher_);
  HttpTestClient client_{server_->address()};
};

TEST_F(HttpServerTest, WholeChat) {
  const TestResponse response = client_.Post(kChatPath, kBody);
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.headers.at("content-type"), "application/json");
  EXPECT_TRUE(response.headers.contains("date"));
  const boost::json::value body = boost::json::parse(response.body);
  EXPECT_EQ(body.at("choices").at(0).at("message").at("content").as_string(), "Hello, world");
  EXPECT_EQ(body.at("model").as_string(), kTestModel);
  EXPECT_EQ(body.at("usage").at("completion_tokens").as_int64(), 3);
  const std::string id = "chatcmpl-" + response.headers.at("x-request-id");
  EXPECT_EQ(std::string(body.at("id").as_string()), id);
}

TEST_F(HttpServerTest, StreamedChat) {
  const TestResponse response = client_.Post(kChatPath, kStreamBody);
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.headers.at("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_THAT(response.body, HasSubstr(R"("delta":{"content":"Hello"})"));
  EXPECT_TRUE(response.body.ends_with("data: [DONE]\n\n"));
  EXPECT_EQ(client_.Get("/health").status, 200) << "the connection goes on after a stream";
}

TEST_F(HttpServerTest, TokenIdsAndStats) {
  const TestResponse response = client_.Post(
      kChatPath, R"({"messages":[{"role":"user","content":"hi"}],"return_token_ids":true,)"
                 R"("return_stats":true})");
  const boost::json::value body = boost::json::parse(response.body);
  EXPECT_EQ(boost::json::serialize(body.at("prompt_token_ids")), "[999,104,105]");
  EXPECT_EQ(boost::json::serialize(body.at("choices").at(0).at("token_ids")), "[100,101,102]");
  EXPECT_EQ(body.at("baton").at("decode_worker").as_string(), "decode-0");
}

TEST_F(HttpServerTest, EveryChoiceIsARequestOfItsOwn) {
  const TestResponse response =
      client_.Post("/v1/completions", R"({"prompt":["a","b"],"n":2,"seed":40})");
  EXPECT_EQ(response.status, 200) << response.body;
  EXPECT_EQ(boost::json::parse(response.body).at("choices").as_array().size(), 4u);
  const std::vector<GenerateInput> inputs = dispatcher_.WaitForInputs(4);
  ASSERT_EQ(inputs.size(), 4u);
  EXPECT_EQ(inputs[0].sampling.seed, 40u);
  EXPECT_EQ(inputs[1].sampling.seed, 41u);
  EXPECT_EQ(inputs[2].sampling.seed, 40u);
  EXPECT_EQ(std::get<std::string>(inputs[2].prompt), "b");
}

TEST_F(HttpServerTest, UnicodeGoesThrough) {
  const std::string text = "é\\u00e9\\ud83d\\ude42\\u0000";
  EXPECT_EQ(client_.Post("/v1/completions", R"({"prompt":")" + text + "\"}").status, 200);
  EXPECT_EQ(std::get<std::string>(dispatcher_.WaitForInputs(1).at(0).prompt),
            std::string("éé🙂\0", 9));
}

TEST_F(HttpServerTest, SmallResources) {
  EXPECT_EQ(client_.Get("/health").body, R"({"status":"ok"})");
  EXPECT_EQ(client_.Get("/ready").status, 200);
  dispatcher_.set_ready(false);
  const TestResponse unready = client_.Get("/ready");
  ExpectError(unready, 503, "not_ready", "no decode worker");
  EXPECT_EQ(unready.headers.at("retry-after"), "1");
  EXPECT_EQ(client_.Get("/health").status, 200) << "the process is alive all the same";

  const boost::json::value models = boost::json::parse(client_.Get("/v1/models").body);
  EXPECT_EQ(models.at("data").at(0).at("id").as_string(), kTestModel);
  EXPECT_EQ(models.at("data").at(0).at("max_model_len").as_int64(), 2048);
  EXPECT_EQ(client_.Get("/v1/models/test%2Dmodel?x=1").status, 200);
  ExpectError(client_.Get("/v1/models/other"), 404, "model_not_found", "no model 'other'");

  const TestResponse metrics = client_.Get("/metrics");
  EXPECT_EQ(metrics.headers.at("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_TRUE(metrics.body.starts_with("baton_test_metric 1\n# HELP baton_http_connections"));
  EXPECT_THAT(metrics.body, HasSubstr("baton_http_connections 1\n"));
  EXPECT_THAT(metrics.body, HasSubstr("baton_http_responses_total{code=\"404\"} 1\n"));

  client_.Send("HEAD /health HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_EQ(client_.Read(true).headers.at("content-length"), "15");
  EXPECT_EQ(client_.Get("/health").status, 200) << "HEAD sent no body";
}

TEST_F(HttpServerTest, TextToTokensAndBack) {
  const boost::json::value tokens =
      boost::json::parse(client_.Post("/tokenize", R"({"prompt":"abc"})").body);
  EXPECT_EQ(tokens.at("max_model_len").as_int64(), 2048);
  EXPECT_EQ(static_cast<size_t>(tokens.at("count").as_int64()),
            tokens.at("tokens").as_array().size());
  EXPECT_TRUE(tokens.at("token_strs").is_null());
  EXPECT_EQ(client_.Post("/detokenize", R"({"tokens":[1,2]})").status, 200);
  ExpectError(client_.Post("/tokenize", "{}"), 400, "", "'prompt' is missing");
  ExpectError(client_.Post("/tokenize", R"({"promt":"x"})"), 400, "", "did you mean 'prompt'?");
  ExpectError(client_.Post("/detokenize", R"({"tokens":["a"]})"), 400, "", "must be a token id");
  ExpectError(client_.Post("/v1/embeddings", R"({"input":"x"})"), 400, "", "no embeddings");
}

TEST_F(HttpServerTest, TextGenerationInference) {
  const boost::json::value whole = boost::json::parse(
      client_.Post("/generate", R"({"inputs":"x","parameters":{"details":true}})").body);
  EXPECT_EQ(whole.at("generated_text").as_string(), "Hello, world");
  EXPECT_EQ(whole.at("details").at("tokens").as_array().size(), 3u);
  const TestResponse stream = client_.Post("/generate_stream", R"({"inputs":"x"})");
  EXPECT_TRUE(stream.body.starts_with(R"(data:{"index":1,"token":{"id":100,"text":"Hello")"));
  EXPECT_THAT(stream.body, HasSubstr(R"("generated_text":"Hello, world")"));
  const TestResponse refused = client_.Post("/generate", R"({"inputs":1})");
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.body,
            R"({"error":"'inputs' must be a string, not an integer","error_type":"validation"})");
  EXPECT_THAT(client_.Get("/info").body, HasSubstr(R"("max_total_tokens":2048)"));
}

TEST_F(HttpServerTest, EchoAndTheBestOfSeveral) {
  const boost::json::value echoed =
      boost::json::parse(client_.Post("/v1/completions", R"({"prompt":"Say: ","echo":true})").body);
  EXPECT_EQ(echoed.at("choices").at(0).at("text").as_string(), "Say: Hello, world");
  const boost::json::value best = boost::json::parse(
      client_.Post("/v1/completions", R"({"prompt":"x","n":1,"best_of":3})").body);
  EXPECT_EQ(best.at("choices").as_array().size(), 1u);
  EXPECT_EQ(best.at("usage").at("completion_tokens").as_int64(), 9);
}

TEST_F(HttpServerTest, RefusalsKeepTheConnection) {
  ExpectError(client_.Post(kChatPath, "{"), 400, "", "not valid JSON");
  ExpectError(client_.Post(kChatPath, ""), 400, "", "the body is empty");
  const TestResponse unknown_field = client_.Post(kChatPath, R"({"max_token":1})");
  ExpectError(unknown_field, 400, "", "did you mean 'max_tokens'?");
  EXPECT_EQ(ErrorOf(unknown_field).at("param").as_string(), "max_token");
  ExpectError(
      client_.Post(kChatPath, R"({"temperature":-1,"messages":[{"role":"user","content":"x"}]})"),
      400, "", "temperature is -1, but must be in [0, 100]");
  const TestResponse unknown_model =
      client_.Post(kChatPath, R"({"model":"gpt-9","messages":[{"role":"user","content":"x"}]})");
  ExpectError(unknown_model, 404, "model_not_found", "no model 'gpt-9'");
  EXPECT_EQ(ErrorOf(unknown_model).at("param").as_string(), "model");
  ExpectError(client_.Get("/v1/chat/completion"), 404, "unknown_path",
              "there is no '/v1/chat/completion'; did you mean '/v1/chat/completions'?");
  const TestResponse wrong_method = client_.Get(kChatPath);
  ExpectError(wrong_method, 405, "method_not_allowed", "use POST");
  EXPECT_EQ(wrong_method.headers.at("allow"), "POST");
  client_.Send("DELETE /health HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_EQ(client_.Read().headers.at("allow"), "GET, HEAD");
  client_.Send(
      "POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n\r\n");
  ExpectError(client_.Read(), 411, "length_required", "Content-Length");
  EXPECT_EQ(client_.Get("/health").status, 200);
}

TEST_F(HttpServerTest, DispatcherErrorsBecomeStatusCodes) {
  const auto answer = [this](absl::Status status) {
    dispatcher_.RefuseAfter(0, std::move(status));
    return client_.Post(kChatPath, kStreamBody);
  };
  const TestResponse busy = answer(absl::ResourceExhaustedError("4,096 requests are running"));
  ExpectError(busy, 429, "rate_limit_exceeded", "4,096 requests");
  EXPECT_EQ(busy.headers.at("retry-after"), "1");
  const TestResponse unavailable = answer(absl::UnavailableError("no worker"));
  ExpectError(unavailable, 503, "unavailable", "no worker");
  EXPECT_EQ(unavailable.headers.at("retry-after"), "1");
  ExpectError(answer(absl::DeadlineExceededError("late")), 504, "deadline_exceeded", "late");
  ExpectError(answer(absl::InternalError("broken")), 500, "internal_error", "broken");
  ExpectError(answer(absl::DataLossError("lost")), 500, "internal_error", "lost");
  ExpectError(answer(absl::OutOfRangeError("too far")), 400, "", "too far");
  const TestResponse too_long =
      answer(WithErrorCode(absl::InvalidArgumentError("too long"), kContextLengthExceeded));
  ExpectError(too_long, 400, "context_length_exceeded", "too long");
  EXPECT_EQ(ErrorOf(too_long).at("param").as_string(), "messages");
}

TEST_F(HttpServerTest, RefusingOneChoiceCancelsTheOthers) {
  dispatcher_.RefuseAfter(2, absl::ResourceExhaustedError("full"));
  const TestResponse response = client_.Post(
      kChatPath, R"({"n":4,"stream":true,"messages":[{"role":"user","content":"x"}]})");
  ExpectError(response, 429, "rate_limit_exceeded", "full");
  EXPECT_TRUE(dispatcher_.WaitForCancel(1));
  EXPECT_TRUE(dispatcher_.WaitForCancel(2));
}

TEST_F(HttpServerTest, LargeBodies) {
  // Over the limit: answered from the Content-Length alone, while the client is still sending.
  const std::string huge(20 << 20, 'x');
  client_.SendPost(kChatPath, huge);
  const TestResponse response = client_.Read();
  ExpectError(response, 413, "body_too_large", "more than 10485760 bytes");
  EXPECT_EQ(response.headers.at("connection"), "close");
  EXPECT_TRUE(client_.AtEnd());

  HttpTestClient header_only(server_->address());
  header_only.Send(
      "POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
      "Expect: 100-continue\r\nContent-Length: 20971520\r\n\r\n");
  EXPECT_EQ(header_only.Read().status, 413);

  HttpTestClient chunked(server_->address());
  chunked.Send(
      "POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
      "Transfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 20; ++i) chunked.Send("100000\r\n" + huge.substr(0, 1 << 20) + "\r\n");
  EXPECT_EQ(chunked.Read().status, 413);

  // Under it: parsed and tokenized off the connections' threads.
  HttpTestClient large(server_->address());
  const std::string text(9 << 20, 'y');
  EXPECT_EQ(large.Post("/v1/completions", R"({"prompt":")" + text + "\"}").status, 200);
  EXPECT_EQ(std::get<std::string>(dispatcher_.WaitForInputs(1).at(0).prompt), text);
  EXPECT_EQ(large.Get("/health").status, 200);
}

TEST_F(HttpServerTest, BodiesThatAreNotJsonByName) {
  const std::string request =
      "POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\nContent-Length: "
      "2\r\n\r\n{}";
  client_.Send(request);
  ExpectError(client_.Read(), 415, "unsupported_media_type", "Content-Type: application/json");
  HttpTestClient other(server_->address());
  other.SendPost(kChatPath, kBody, "Content-Encoding: gzip\r\n");
  EXPECT_EQ(other.Read().status, 415);
}

// Also before the first token, when there is nothing to write that could fail.

TEST(HttpServer, StoppingTheServerCancels) {
  ScriptedDispatcher dispatcher([](const Submission&) {});
  auto server = Serve(&dispatcher);
  HttpTestClient client(server->address());
  HttpTestClient idle(server->address());
  client.SendPost(kChatPath, kStreamBody);
  EXPECT_EQ(dispatcher.WaitForInputs(1).size(), 1u);
  server.reset();
  EXPECT_TRUE(dispatcher.WaitForCancel(1));
  EXPECT_TRUE(client.AtEnd());
  EXPECT_TRUE(idle.AtEnd());
}

// Nothing more is generated, so the backlog's bound is never reached: the clock ends it.

TEST(HttpServer, ConnectionsAreBounded) {
  ScriptedDispatcher dispatcher;
  HttpOptions options;
  options.max_connections = 2;
  const auto server = Serve(&dispatcher, options);
  HttpTestClient first(server->address());
  HttpTestClient second(server->address());
  EXPECT_EQ(first.Get("/health").status, 200);
  EXPECT_EQ(second.Get("/health").status, 200);
  HttpTestClient third(server->address());
  const TestResponse refused = third.Read();
  EXPECT_EQ(refused.status, 503);
  EXPECT_THAT(refused.body, HasSubstr("there are 2 connections already"));
  first.Close();
  bool served = false;
  for (int i = 0; i < 1000 && !served; ++i) {  // until the server has noticed
    HttpTestClient again(server->address());
    served = again.Get("/health").status == 200;
  }
  EXPECT_TRUE(served);
}

TEST(HttpServer, BodiesTogetherAreBounded) {
  ScriptedDispatcher dispatcher;
  HttpOptions options;
  options.max_bodies_bytes = 1000;
  const auto server = Serve(&dispatcher, options);
  HttpTestClient holder(server->address());
  holder.Send(
      "POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
      "Expect: 100-continue\r\nContent-Length: 990\r\n\r\n");
  EXPECT_EQ(holder.Read().status, 100);
  HttpTestClient client(server->address());
  EXPECT_EQ(client.Post(kChatPath, kBody).status, 503);
  holder.Close();
  bool served = false;
  for (int i = 0; i < 1000 && !served; ++i) {
    HttpTestClient again(server->address());
    served = again.Post(kChatPath, kBody).status == 200;
  }
  EXPECT_TRUE(served);
}

TEST(HttpServer, TakenAndUnsoundAddresses) {
  ScriptedDispatcher dispatcher;
  const auto server = Serve(&dispatcher);
  HttpOptions options;
  options.address = server->address();
  const auto second = HttpServer::Create(options, &dispatcher);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(options.address));
  for (const char* address : {"localhost", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:99999"}) {
    options.address = address;
    EXPECT_EQ(HttpServer::Create(options, &dispatcher).status().code(),
              absl::StatusCode::kInvalidArgument)
        << address;
  }
}

// Many streams at a time over several threads, each complete and in order.

TEST(HttpServer, ManyStreamsAtATime) {
  constexpr int kTokens = 50;
  ScriptedDispatcher dispatcher([](const Submission& submission) {
    for (int32_t i = 0; i < kTokens; ++i) {
      submission.sink.on_delta(TextDelta(i, "t" + std::to_string(i) + ","));
    }
    submission.sink.on_finish(TestFinish(kTokens));
  });
  const auto server = Serve(&dispatcher);
  std::vector<std::thread> clients;
  std::atomic<int> complete = 0;
  for (int c = 0; c < 16; ++c) {
    clients.emplace_back([&] {
      HttpTestClient client(server->address());
      for (int round = 0; round < 10; ++round) {
        const TestResponse response =
            client.Post("/v1/completions", R"({"prompt":"x","stream":true})");
        size_t at = 0;
        for (int i = 0; i < kTokens && at != std::string::npos; ++i) {
          at = response.body.find("\"text\":\"t" + std::to_string(i) + ",\"", at);
        }
        if (at != std::string::npos && response.body.ends_with("data: [DONE]\n\n")) ++complete;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(complete, 160);
}

TEST_F(HttpServerTest, AFullRouterRefusesFromTheHeadersAlone) {
  ScriptedDispatcher dispatcher;
  dispatcher.set_room(
      WithRetryAfter(absl::ResourceExhaustedError("full"), std::chrono::seconds(7)));
  const auto server = Serve(&dispatcher);
  HttpTestClient client(server->address());
  for (int i = 0; i < 2; ++i) {  // a small body is out of the way, and the connection lives on
    const TestResponse refused = client.Post(kChatPath, "this would not even parse");
    EXPECT_EQ(refused.status, 429);
    EXPECT_EQ(refused.headers.at("retry-after"), "7");
    EXPECT_EQ(refused.headers.at("connection"), "keep-alive");
    EXPECT_THAT(refused.body, HasSubstr("\"code\":\"rate_limit_exceeded\""));
  }
  // A large one is not waited for.
  ASSERT_TRUE(
      client.Send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: "
                  "application/json\r\nContent-Length: 1000000\r\n\r\n"));
  const TestResponse refused = client.Read();
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.headers.at("connection"), "close");
  dispatcher.set_room(absl::OkStatus());
  HttpTestClient next(server->address());
  EXPECT_EQ(next.Post(kChatPath, kBody).status, 200);
}

TEST_F(HttpServerTest, TellsItsVersion) {
  EXPECT_THAT(client_.Get("/version").body, HasSubstr("{\"version\":\"0."));
}

TEST_F(HttpServerTest, Responses) {
  const TestResponse whole = client_.Post("/v1/responses", R"({"input":"hi"})");
  EXPECT_EQ(whole.status, 200);
  const boost::json::value body = boost::json::parse(whole.body);
  EXPECT_EQ(body.at("output").at(0).at("content").at(0).at("text"), "Hello, world");
  EXPECT_EQ(std::string(body.at("id").as_string()), "resp_" + whole.headers.at("x-request-id"));
  EXPECT_EQ(body.at("model").as_string(), kTestModel);
  const TestResponse stream = client_.Post("/v1/responses", R"({"input":"hi","stream":true})");
  EXPECT_THAT(stream.body, testing::StartsWith("event: response.created\ndata: {"));
  EXPECT_THAT(stream.body, HasSubstr("event: response.completed\n"));
  ExpectError(client_.Post("/v1/responses", R"({"input":"hi","tools":[{"type":"x"}]})"), 400, "",
              "'tools' is not supported by /v1/responses");
}

TEST_F(HttpServerTest, PagesOfAnotherOriginMayAskWhereItIsAllowed) {
  constexpr char kPreflight[] =
      "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\n\r\n";
  client_.Send(kPreflight);
  EXPECT_EQ(client_.Read().status, 405);

  const auto server = Serve(&dispatcher_, {.cors_origin = "https://a.example"});
  HttpTestClient page(server->address());
  page.Send(kPreflight);
  const TestResponse allowed = page.Read(/*head_only=*/true);
  EXPECT_EQ(allowed.status, 204);
  EXPECT_EQ(allowed.headers.at("access-control-allow-origin"), "https://a.example");
  EXPECT_EQ(allowed.headers.at("access-control-allow-methods"), "POST, OPTIONS");
  EXPECT_FALSE(allowed.headers.contains("content-length"));
  for (const char* body : {kBody, kStreamBody, "{"}) {
    EXPECT_EQ(page.Post(kChatPath, body).headers.at("access-control-allow-origin"),
              "https://a.example");
  }
}

}  // namespace
}  // namespace baton::router
