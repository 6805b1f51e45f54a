#include "router/grpc_server.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <thread>

#include "baton/v1/baton.grpc.pb.h"
#include "router/telemetry.h"
#include "tests/router/scripted_dispatcher.h"

namespace baton::router {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::unique_ptr<GrpcServer> ServeGrpc(Dispatcher* dispatcher, GrpcOptions options = {}) {
  options.address = "127.0.0.1:0";
  auto server = GrpcServer::Create(options, dispatcher);
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

struct TestClient {
  explicit TestClient(const std::string& address)
      : channel(grpc::CreateChannel(address, grpc::InsecureChannelCredentials())),
        stub(v1::Baton::NewStub(channel)) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  }

  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Baton::Stub> stub;
  grpc::ClientContext context;
};

// One message each way, as bytes: health and reflection have no generated stubs among the installed
// headers.
std::string RawCall(const std::string& address, const std::string& method,
                    const std::string& bytes) {
  const auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  const auto wait = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
  };
  const auto call = stub.PrepareCall(&context, method, &queue);
  call->StartCall(nullptr);
  wait();
  grpc::Slice request_slice(bytes);
  call->WriteLast(grpc::ByteBuffer(&request_slice, 1), grpc::WriteOptions(), nullptr);
  wait();
  grpc::ByteBuffer answer;
  call->Read(&answer, nullptr);
  wait();
  grpc::Status status;
  call->Finish(&status, nullptr);
  wait();
  EXPECT_TRUE(status.ok()) << method << ": " << status.error_message();
  grpc::Slice slice;
  if (!answer.Valid() || !answer.DumpToSingleSlice(&slice).ok()) return "";
  return std::string(reinterpret_cast<const char*>(slice.begin()), slice.size());
}

// grpc.health.v1: SERVING is 1, NOT_SERVING is 2.
int HealthOf(const std::string& address, const std::string& service) {
  const std::string request =
      service.empty() ? "" : std::string("\x0a") + static_cast<char>(service.size()) + service;
  const std::string answer = RawCall(address, "/grpc.health.v1.Health/Check", request);
  return answer.size() == 2 && answer[0] == '\x08' ? answer[1] : -1;
}

v1::GenerateRequest TextRequest() {
  v1::GenerateRequest request;
  request.set_text("hi");
  return request;
}

TEST(GrpcServer, GenerateStreamsDeltasAndOneFinish) {
  ScriptedDispatcher dispatcher;
  const auto server = ServeGrpc(&dispatcher);
  TestClient client(server->address());
  v1::GenerateRequest request = TextRequest();
  request.set_model(kTestModel);
  request.add_stop("END");
  request.set_cache_salt("salt");
  request.mutable_sampling()->set_temperature(0);
  request.mutable_sampling()->set_seed(9);
  request.mutable_sampling()->set_logprobs(2);
  request.mutable_sampling()->add_stop_token_ids(3);
  request.mutable_sampling()->add_allowed_token_ids(6);
  request.mutable_sampling()->add_bad_words("no");
  auto* bias = request.mutable_sampling()->add_logit_bias();
  bias->set_token(4);
  bias->set_bias(-2);
  const auto reader = client.stub->Generate(&client.context, request);
  v1::GenerateResponse message;
  std::string text;
  std::vector<int32_t> tokens;
  int finishes = 0;
  while (reader->Read(&message)) {
    if (message.has_delta()) {
      EXPECT_EQ(finishes, 0);
      EXPECT_EQ(message.delta().index(), static_cast<int32_t>(tokens.size()));
      ASSERT_EQ(message.delta().logprobs_size(), 1);
      EXPECT_EQ(message.delta().logprobs(0).logprob(), -0.5f);
      EXPECT_EQ(message.delta().top_logprobs(0).best(1).text(), "\xE2\x80");
      text += message.delta().text();
      tokens.insert(tokens.end(), message.delta().tokens().begin(), message.delta().tokens().end());
    } else {
      ++finishes;
      EXPECT_EQ(message.finish().reason(), v1::FINISH_REASON_STOP);
      EXPECT_EQ(message.finish().output_tokens(), 3);
      EXPECT_EQ(message.finish().stats().kv_bytes_moved(), 4096);
      EXPECT_EQ(message.finish().stats().handover_s(), 0.125);
      EXPECT_EQ(message.finish().stats().migrations(), 2);
    }
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(text, "Hello, world");
  EXPECT_THAT(tokens, ElementsAre(100, 101, 102));
  EXPECT_EQ(finishes, 1);

  const GenerateInput input = dispatcher.WaitForInputs(1).at(0);
  EXPECT_EQ(std::get<std::string>(input.prompt), "hi");
  EXPECT_THAT(input.stop, ElementsAre("END"));
  EXPECT_EQ(input.cache_salt, "salt");
  EXPECT_TRUE(input.has_seed);
  EXPECT_FALSE(input.has_max_tokens);
  EXPECT_EQ(input.sampling.temperature, 0.0f);
  EXPECT_EQ(input.sampling.top_p, 1.0f) << "not set: the default";
  EXPECT_THAT(input.sampling.logit_bias, ElementsAre(testing::Pair(4, -2.0f)));
  EXPECT_THAT(input.sampling.stop_token_ids, ElementsAre(3));
  EXPECT_THAT(input.sampling.allowed_token_ids, ElementsAre(6));
  EXPECT_THAT(input.bad_words, ElementsAre("no"));
}

TEST(GrpcServer, ConstraintsAndLongTextsAreReadOnOtherThreads) {
  ScriptedDispatcher dispatcher;
  const auto server = ServeGrpc(&dispatcher);
  const auto ask = [&](const v1::GenerateRequest& request) {
    TestClient client(server->address());
    const auto reader = client.stub->Generate(&client.context, request);
    v1::GenerateResponse message;
    while (reader->Read(&message)) {
    }
    return reader->Finish();
  };
  v1::GenerateRequest request = TextRequest();
  request.mutable_sampling()->set_constraint(R"({"regex":"a+"})");
  EXPECT_TRUE(ask(request).ok());
  EXPECT_EQ(dispatcher.WaitForInputs(1).at(0).sampling.constraint, R"({"regex":"a+"})");
  request.set_resumable(true);
  request.mutable_sampling()->set_constraint(R"j({"regex":"(?=a)"})j");
  const grpc::Status refused = ask(request);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << refused.error_message();
  request = TextRequest();
  request.set_text(std::string(100'000, 'x'));
  EXPECT_TRUE(ask(request).ok());
  EXPECT_EQ(std::get<std::string>(dispatcher.WaitForInputs(2).at(1).prompt).size(), 100'000u);

  // Whose clients leave while others are compiled: each ends, and none is submitted twice.
  request = TextRequest();
  request.mutable_sampling()->set_constraint(R"j({"regex":"(a{0,5000}b{0,5000}){0,3}"})j");
  for (int i = 0; i < 20; ++i) {
    TestClient client(server->address());
    const auto reader = client.stub->Generate(&client.context, request);
    client.context.TryCancel();
    reader->Finish();
  }
  EXPECT_TRUE(ask(TextRequest()).ok());
}

TEST(GrpcServer, KeepsIdsAndTracesAndTellsOfWhatItRefuses) {
  const auto telemetry = *Telemetry::Create({});
  ScriptedDispatcher dispatcher;
  GrpcOptions options;
  options.telemetry = telemetry.get();
  const auto server = ServeGrpc(&dispatcher, options);
  TestClient client(server->address());
  client.context.AddMetadata("x-request-id", "my-call");
  client.context.AddMetadata("traceparent",
                             "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  const auto reader = client.stub->Generate(&client.context, TextRequest());
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
  const auto& metadata = client.context.GetServerInitialMetadata();
  ASSERT_EQ(metadata.count("x-request-id"), 1u);
  EXPECT_EQ(metadata.find("x-request-id")->second, "my-call");
  const auto call = dispatcher.WaitForInputs(1)[0].call;
  EXPECT_EQ(call->endpoint, "baton.v1.Baton/Generate");
  EXPECT_EQ(call->request_id, "my-call");
  EXPECT_EQ(call->client, "127.0.0.1");
  ASSERT_EQ(metadata.count("traceparent"), 1u);
  EXPECT_EQ(metadata.find("traceparent")->second, Traceparent(call->trace));
  EXPECT_EQ(call->trace.parent, 0xb7ad6b7169203331u);
  EXPECT_TRUE(telemetry->Recent().empty());

  TestClient other(server->address());
  v1::GenerateRequest request = TextRequest();
  request.set_model("no-such-model");
  const auto refused = other.stub->Generate(&other.context, request);
  EXPECT_FALSE(refused->Read(&response));
  EXPECT_EQ(refused->Finish().error_code(), grpc::StatusCode::NOT_FOUND);
  ASSERT_EQ(telemetry->Refused().size(), 1u);
  EXPECT_EQ(telemetry->Refused()[0]->http_status, 404);
  EXPECT_EQ(other.context.GetServerInitialMetadata().count("traceparent"), 0u);
}

TEST(GrpcServer, ErrorsKeepTheirCodeAndText) {
  ScriptedDispatcher dispatcher;
  const auto server = ServeGrpc(&dispatcher);
  const auto status_of = [&](const v1::GenerateRequest& request) {
    TestClient client(server->address());
    const auto reader = client.stub->Generate(&client.context, request);
    v1::GenerateResponse message;
    EXPECT_FALSE(reader->Read(&message));
    return reader->Finish();
  };
  EXPECT_EQ(status_of({}).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status_of({}).error_message(), HasSubstr("set text, chat or tokens"));
  v1::GenerateRequest request = TextRequest();
  request.set_model("other");
  EXPECT_EQ(status_of(request).error_code(), grpc::StatusCode::NOT_FOUND);
  request = TextRequest();
  request.mutable_sampling()->set_top_p(2);
  EXPECT_EQ(status_of(request).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status_of(request).error_message(), "top_p is 2, but must be in (0, 1]");
  dispatcher.RefuseAfter(0, absl::ResourceExhaustedError("full"));
  EXPECT_EQ(status_of(TextRequest()).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  dispatcher.RefuseAfter(0, absl::UnavailableError("none"));
  EXPECT_EQ(status_of(TextRequest()).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(GrpcServer, ErrorAfterSomeTokens) {
  ScriptedDispatcher dispatcher([](const Submission& submission) {
    submission.sink.on_delta(TextDelta(0, "a"));
    submission.sink.on_error(absl::DeadlineExceededError("late"));
  });
  const auto server = ServeGrpc(&dispatcher);
  TestClient client(server->address());
  const auto reader = client.stub->Generate(&client.context, TextRequest());
  v1::GenerateResponse message;
  EXPECT_TRUE(reader->Read(&message));
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST(GrpcServer, CancellingCancels) {
  ScriptedDispatcher dispatcher(
      [](const Submission& submission) { submission.sink.on_delta(TextDelta(0, "a")); });
  const auto server = ServeGrpc(&dispatcher);
  TestClient client(server->address());
  const auto reader = client.stub->Generate(&client.context, TextRequest());
  v1::GenerateResponse message;
  EXPECT_TRUE(reader->Read(&message));
  client.context.TryCancel();
  EXPECT_TRUE(dispatcher.WaitForCancel(1));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST(GrpcServer, TheClientsDeadlineCancels) {
  ScriptedDispatcher dispatcher([](const Submission&) {});
  const auto server = ServeGrpc(&dispatcher);
  TestClient client(server->address());
  client.context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  const auto reader = client.stub->Generate(&client.context, TextRequest());
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(dispatcher.WaitForCancel(1));
}

TEST(GrpcServer, ClientThatDoesNotReadIsCutOff) {
  std::atomic<bool> stop = false;
  ScriptedDispatcher dispatcher([&](const Submission& submission) {
    const std::string piece(64 << 10, 'x');
    for (int32_t i = 0; !stop; ++i) {
      submission.sink.on_delta(TextDelta(i, piece));
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  const auto server = ServeGrpc(&dispatcher);
  TestClient client(server->address());
  const auto reader = client.stub->Generate(&client.context, TextRequest());
  EXPECT_TRUE(dispatcher.WaitForCancel(1));
  stop = true;
  v1::GenerateResponse message;
  while (reader->Read(&message)) continue;
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST(GrpcServer, StoppingTheServerEndsCalls) {
  ScriptedDispatcher dispatcher([](const Submission&) {});
  auto server = ServeGrpc(&dispatcher);
  TestClient client(server->address());
  const auto reader = client.stub->Generate(&client.context, TextRequest());
  EXPECT_EQ(dispatcher.WaitForInputs(1).size(), 1u);
  server.reset();
  EXPECT_TRUE(dispatcher.WaitForCancel(1));
  EXPECT_FALSE(reader->Finish().ok());
}

TEST(GrpcServer, MessagesAreBounded) {
  ScriptedDispatcher dispatcher;
  GrpcOptions options;
  options.limits.max_body_bytes = 1000;
  const auto server = ServeGrpc(&dispatcher, options);
  TestClient client(server->address());
  v1::GenerateRequest request;
  request.set_text(std::string(2000, 'x'));
  const auto reader = client.stub->Generate(&client.context, request);
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST(GrpcServer, UnaryCalls) {
  ScriptedDispatcher dispatcher;
  const auto server = ServeGrpc(&dispatcher);
  {
    TestClient client(server->address());
    v1::TokenizeRequest request;
    v1::ChatMessage* chat = request.mutable_chat()->add_messages();
    chat->set_role("user");
    chat->set_content("A");
    v1::TokenizeResponse response;
    EXPECT_TRUE(client.stub->Tokenize(&client.context, request, &response).ok());
    EXPECT_THAT(response.ids(), ElementsAre(999, 65));
  }
  {
    TestClient client(server->address());
    v1::TokenizeResponse response;
    EXPECT_EQ(client.stub->Tokenize(&client.context, {}, &response).error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
  }
  {
    TestClient client(server->address());
    v1::DetokenizeRequest request;
    request.add_ids(0xFF);
    request.add_ids('b');
    v1::DetokenizeResponse response;
    EXPECT_TRUE(client.stub->Detokenize(&client.context, request, &response).ok());
    EXPECT_EQ(response.text(),
              "\xFF"
              "b")
        << "bytes, not necessarily UTF-8";
  }
  {
    TestClient client(server->address());
    v1::ListModelsResponse response;
    EXPECT_TRUE(client.stub->ListModels(&client.context, {}, &response).ok());
    ASSERT_EQ(response.models_size(), 1);
    EXPECT_EQ(response.models(0).context_tokens(), 2048);
  }
  {
    TestClient client(server->address());
    v1::GetFleetResponse response;
    EXPECT_TRUE(client.stub->GetFleet(&client.context, {}, &response).ok());
    ASSERT_EQ(response.workers_size(), 1);
    EXPECT_EQ(response.workers(0).state(), "ready");
    EXPECT_EQ(response.workers(0).blocks_total(), 12);
    ASSERT_EQ(response.workers(0).paths_size(), 1);
    const v1::KvPath& path = response.workers(0).paths(0);
    EXPECT_EQ(path.source(), "prefill-0");
    EXPECT_EQ(path.transport(), "shm");
    EXPECT_EQ(path.bytes_per_s(), 6e9);
    EXPECT_EQ(path.expected_bytes_per_s(), 12e9);
    EXPECT_TRUE(path.in_use());
    ASSERT_EQ(response.discovery_size(), 1);
    const v1::Discovery& source = response.discovery(0);
    EXPECT_EQ(source.source(), "etcd");
    EXPECT_EQ(source.where(), "/baton/");
    EXPECT_FALSE(source.current());
    EXPECT_EQ(source.trouble(), "UNAVAILABLE: gone");
    EXPECT_EQ(source.failures(), 3);
    EXPECT_EQ(source.workers(), 2);
  }
}

TEST(GrpcServer, HealthFollowsReadiness) {
  ScriptedDispatcher dispatcher;
  const auto server = ServeGrpc(&dispatcher);
  const auto becomes = [&](int wanted) {
    for (int i = 0; i < 200; ++i) {  // it is asked for every 100 ms
      if (HealthOf(server->address(), "baton.v1.Baton") == wanted) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return false;
  };
  EXPECT_TRUE(becomes(1));
  dispatcher.set_ready(false);
  EXPECT_TRUE(becomes(2));
  EXPECT_EQ(HealthOf(server->address(), ""), 1) << "the process is alive all the same";
  dispatcher.set_ready(true);
  EXPECT_TRUE(becomes(1));
}

TEST(GrpcServer, ReflectionListsTheService) {
  ScriptedDispatcher dispatcher;
  const auto server = ServeGrpc(&dispatcher);
  // ServerReflectionRequest{list_services: "*"}.
  const std::string services =
      RawCall(server->address(), "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
              "\x3a\x01*");
  EXPECT_THAT(services, HasSubstr("baton.v1.Baton"));
  EXPECT_THAT(services, HasSubstr("grpc.health.v1.Health"));
}

TEST(GrpcServer, ATakenPortIsAnError) {
  ScriptedDispatcher dispatcher;
  const auto server = ServeGrpc(&dispatcher);
  GrpcOptions options;
  options.address = server->address();
  const auto second = GrpcServer::Create(options, &dispatcher);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(options.address));
  options.address = "nowhere";
  EXPECT_EQ(GrpcServer::Create(options, &dispatcher).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace baton::router
