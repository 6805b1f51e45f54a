// The worker's end of the link, with the real client or a raw stream as its peer.

#include "worker_link/server.h"

#include <fmt/format.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <future>
#include <optional>
#include <thread>
#include <vector>

#include "baton/v1/worker.grpc.pb.h"
#include "tests/worker_link/link_testing.h"
#include "worker_link/convert.h"
#include "worker_link/limits.h"

namespace baton::worker_link {
namespace {

using std::chrono::seconds;

TEST(LinkServer, HelloCommandsEventsAndStatusArriveInOrder) {
  Mailbox<LinkInput> worker;
  Mailbox<ClientInput> router;
  const auto server = Serve(&worker, "127.0.0.1:0");
  server->SetStatus({.blocks_free = 9});
  const auto client = Connect(&router, server->address());

  const auto opened = worker.Next<LinkOpened>();
  ASSERT_TRUE(opened);
  EXPECT_EQ(opened->router_name, "router-0");
  const auto connected = router.Next<WorkerConnected>();
  ASSERT_TRUE(connected);
  EXPECT_EQ(connected->info.name, "decode-0");
  EXPECT_EQ(connected->info.role, Role::kDecode);
  EXPECT_EQ(connected->info.incarnation, 42u);
  const auto status = router.Next<WorkerStatus>();
  ASSERT_TRUE(status) << "a status set before the router came is told to it";
  EXPECT_EQ(status->blocks_free, 9);

  for (uint64_t i = 0; i < 100; ++i) ASSERT_TRUE(client->Send(Decode(i)));
  ASSERT_TRUE(client->Send(CancelCommand{AttemptOf(3)}));
  for (uint64_t i = 0; i < 100; ++i) {
    const auto input = worker.Take();
    ASSERT_TRUE(input);
    const auto& command = std::get<LinkCommand>(*input);
    EXPECT_EQ(command.link, opened->link);
    EXPECT_EQ(std::get<DecodeCommand>(command.command).attempt, AttemptOf(i));
  }
  const auto cancel = worker.Next<LinkCommand>();
  ASSERT_TRUE(cancel);
  EXPECT_EQ(std::get<CancelCommand>(cancel->command).attempt, AttemptOf(3));
}

TEST(LinkServer, TellsWhatTheCachesHoldToThoseThatAskAsOftenAsTheyDo) {
  BlockJournal journal;
  const std::vector<TokenId> tokens(16 * 9000, 1);
  const std::vector<BlockHash> chain = ChainFullBlocks(ChainRoot("m", ""), tokens, 16);
  for (int32_t i = 0; i < 8999; ++i) {
    journal.Enter(CacheTier::kMemory, chain[static_cast<size_t>(i)], i + 1);
  }
  Mailbox<LinkInput> worker;
  Mailbox<ClientInput> router;
  auto server = LinkServer::Create(
      "127.0.0.1:0", Info(),
      [&worker](LinkInput input) {
        worker.Put(std::move(input));
        return true;
      },
      {}, &journal);
  ASSERT_TRUE(server.ok()) << server.status();
  const auto client = Connect(&router, (*server)->address());
  ASSERT_TRUE(router.Next<WorkerConnected>());
  for (int ask = 0; ask < 2; ++ask) {
    ASSERT_TRUE(client->Send(TellBlocksCommand{}));
    size_t held = 0;
    for (uint64_t number = 1; held < 8999u + static_cast<size_t>(ask); ++number) {
      const auto news = router.Next<BlockNews>();
      ASSERT_TRUE(news);
      EXPECT_EQ(news->number, number);
      EXPECT_EQ(news->restart, number == 1);
      EXPECT_LE(news->changes[0].size(), BlockJournal::kMaxChanges);
      held += news->changes[0].size();
    }
    journal.Enter(CacheTier::kMemory, chain[8999], 9000);
    if (ask == 1) break;
    (*server)->TellBlocks();
    const auto more = router.Next<BlockNews>();
    ASSERT_TRUE(more);
    EXPECT_EQ(more->changes[0], std::vector{KeyOfBlock(chain[8999], 9000) | kHeldBit});
  }
}

TEST(LinkServer, TenThousandEventsArriveOnceAndInOrder) {
  Mailbox<LinkInput> worker;
  Mailbox<ClientInput> router;
  const auto server = Serve(&worker, "127.0.0.1:0");
  const auto client = Connect(&router, server->address());
  const auto opened = worker.Next<LinkOpened>();
  ASSERT_TRUE(opened);
  constexpr int32_t kEvents = 10'000;
  for (int32_t i = 0; i < kEvents; ++i) {
    TokensEvent event{.attempt = AttemptOf(1), .tokens = {}};
    event.tokens.push_back({.token = i % 100, .position = i});
    server->Send(opened->link, {event});
  }
  server->Send(opened->link, {FinishedEvent{.attempt = AttemptOf(1), .output_tokens = kEvents}});
  int32_t next = 0;
  bool finished = false;
  while (!finished) {
    const auto events = router.Next<std::vector<Event>>();
    ASSERT_TRUE(events) << "after " << next << " tokens";
    for (const Event& event : *events) {
      if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
        for (const OutputToken& token : tokens->tokens) ASSERT_EQ(token.position, next++);
      } else {
        finished = true;
        EXPECT_EQ(std::get<FinishedEvent>(event).output_tokens, kEvents);
      }
    }
  }
  EXPECT_EQ(next, kEvents);
}

TEST(LinkServer, AClientThatGoesAwayIsReportedOnce) {
  Mailbox<LinkInput> worker;
  Mailbox<ClientInput> router;
  const auto server = Serve(&worker, "127.0.0.1:0");
  auto client = Connect(&router, server->address());
  const auto opened = worker.Next<LinkOpened>();
  ASSERT_TRUE(opened);
  ASSERT_TRUE(router.Next<WorkerConnected>());
  client.reset();
  const auto lost = worker.Next<LinkLost>();
  ASSERT_TRUE(lost);
  EXPECT_EQ(lost->link, opened->link);
  server->Send(opened->link, {FailedEvent{AttemptOf(1), absl::InternalError("dropped")}});
  // A second router's link is another one, and nothing is left of the first.
  client = Connect(&router, server->address());
  const auto next = worker.Take();
  ASSERT_TRUE(next);
  ASSERT_TRUE(std::holds_alternative<LinkOpened>(*next));
  EXPECT_NE(std::get<LinkOpened>(*next).link, opened->link);
}

TEST(LinkServer, EventsSentJustBeforeTheServerEndsArrive) {
  Mailbox<LinkInput> worker;
  Mailbox<ClientInput> router;
  auto server = Serve(&worker, "127.0.0.1:0");
  const auto client = Connect(&router, server->address());
  const auto opened = worker.Next<LinkOpened>();
  ASSERT_TRUE(opened);
  for (int32_t i = 0; i < 50; ++i) {
    server->Send(opened->link, {FailedEvent{AttemptOf(1), absl::UnavailableError("last words")}});
  }
  server.reset();
  size_t got = 0;
  while (got < 50) {
    const auto input = router.Take();
    ASSERT_TRUE(input);
    ASSERT_FALSE(std::holds_alternative<WorkerLost>(*input)) << "after " << got << " events";
    if (const auto* events = std::get_if<std::vector<Event>>(&*input)) got += events->size();
  }
}

TEST(LinkServer, ATakenPortAndABadAddressAreErrors) {
  Mailbox<LinkInput> worker;
  const auto server = Serve(&worker, "127.0.0.1:0");
  const auto ignore = [](LinkInput) { return true; };
  const auto second = LinkServer::Create(server->address(), Info(), ignore);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(second.status().ToString().find(server->address()), std::string::npos);
  EXPECT_EQ(LinkServer::Create("nowhere", Info(), ignore).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(LinkServer, AFullQueueIsAnsweredForTheWorker) {
  Mailbox<ClientInput> router;
  const auto server = LinkServer::Create("127.0.0.1:0", Info(), [](LinkInput input) {
    return !std::holds_alternative<LinkCommand>(input);
  });
  ASSERT_TRUE(server.ok()) << server.status();
  const auto client = Connect(&router, (*server)->address());
  ASSERT_TRUE(router.Next<WorkerConnected>());
  ASSERT_TRUE(client->Send(Decode(5)));
  const auto events = router.Next<std::vector<Event>>();
  ASSERT_TRUE(events);
  const auto& failed = std::get<FailedEvent>(events->at(0));
  EXPECT_EQ(failed.attempt, AttemptOf(5));
  EXPECT_EQ(failed.status.code(), absl::StatusCode::kResourceExhausted);
  // A cancel that cannot be taken costs the link, which cancels everything.
  ASSERT_TRUE(client->Send(CancelCommand{AttemptOf(5)}));
  EXPECT_TRUE(router.Next<WorkerLost>());
}

TEST(LinkServer, AnotherProtocolIsRefused) {
  Mailbox<LinkInput> worker;
  const auto server = Serve(&worker, "127.0.0.1:0");
  const auto stub = v1::WorkerLink::NewStub(
      grpc::CreateChannel(server->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const auto stream = stub->Connect(&context);
  v1::RouterMessage hello;
  hello.mutable_hello()->set_protocol(kProtocol + 1);
  stream->Write(hello);
  v1::WorkerMessage answer;
  EXPECT_FALSE(stream->Read(&answer));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(status.error_message(),
            fmt::format("the router speaks protocol {}, this worker speaks {}", kProtocol + 1,
                        kProtocol));
}

TEST(LinkServer, AnUnsoundMessageClosesTheStreamAndSaysWhy) {
  Mailbox<LinkInput> worker;
  const auto server = Serve(&worker, "127.0.0.1:0");
  const auto stub = v1::WorkerLink::NewStub(
      grpc::CreateChannel(server->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const auto stream = stub->Connect(&context);
  v1::RouterMessage message;
  message.mutable_hello()->set_protocol(kProtocol);
  stream->Write(message);
  message.mutable_decode();  // without a prompt
  stream->Write(message);
  v1::WorkerMessage answer;
  EXPECT_TRUE(stream->Read(&answer));
  EXPECT_TRUE(answer.has_hello());
  while (stream->Read(&answer)) {
  }
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "prompt is empty");
  EXPECT_TRUE(worker.Next<LinkLost>());
}

TEST(LinkServer, ABatchIsItsCommandsInOrderAndHoldsNoBatch) {
  Mailbox<LinkInput> worker;
  const auto server = Serve(&worker, "127.0.0.1:0");
  const auto stub = v1::WorkerLink::NewStub(
      grpc::CreateChannel(server->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const auto stream = stub->Connect(&context);
  v1::RouterMessage message;
  message.mutable_hello()->set_router_name("router-0");
  message.mutable_hello()->set_protocol(kProtocol);
  stream->Write(message);
  ToWire(Command(Decode(1)), message.mutable_batch()->add_messages());
  ToWire(Command(CancelCommand{AttemptOf(1)}), message.mutable_batch()->add_messages());
  message.mutable_batch()->add_messages()->mutable_batch();
  stream->Write(message);
  const auto decode = worker.Next<LinkCommand>();
  ASSERT_TRUE(decode);
  EXPECT_EQ(std::get<DecodeCommand>(decode->command).attempt, AttemptOf(1));
  const auto cancel = worker.Next<LinkCommand>();
  ASSERT_TRUE(cancel);
  EXPECT_EQ(std::get<CancelCommand>(cancel->command).attempt, AttemptOf(1));
  EXPECT_TRUE(worker.Next<LinkLost>());
  v1::WorkerMessage answer;
  while (stream->Read(&answer)) {
  }
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(status.error_message().find("a batch within a batch"), std::string::npos);
}

TEST(LinkServer, TheFirstMessageIsAHello) {
  Mailbox<LinkInput> worker;
  const auto server = Serve(&worker, "127.0.0.1:0");
  const auto stub = v1::WorkerLink::NewStub(
      grpc::CreateChannel(server->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const auto stream = stub->Connect(&context);
  v1::RouterMessage message;
  message.mutable_cancel();
  stream->Write(message);
  v1::WorkerMessage answer;
  EXPECT_FALSE(stream->Read(&answer));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST(LinkServer, ARouterThatDoesNotReadIsCutOff) {
  Mailbox<LinkInput> worker;
  const auto server = Serve(&worker, "127.0.0.1:0");
  const auto stub = v1::WorkerLink::NewStub(
      grpc::CreateChannel(server->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const auto stream = stub->Connect(&context);
  v1::RouterMessage hello;
  hello.mutable_hello()->set_protocol(kProtocol);
  stream->Write(hello);
  const auto opened = worker.Next<LinkOpened>();
  ASSERT_TRUE(opened);
  TokensEvent step{.attempt = AttemptOf(1), .tokens = {}};
  for (int i = 0; i < 300'000; ++i) step.tokens.push_back({.token = 99'999, .position = i});
  std::optional<LinkInput> lost;
  for (int i = 0; i < 400 && !lost; ++i) {  // 360 MB at most
    server->Send(opened->link, {step});
    lost = worker.Take(Duration(0));
  }
  if (!lost) lost = worker.Take();
  ASSERT_TRUE(lost);
  EXPECT_TRUE(std::holds_alternative<LinkLost>(*lost));
  context.TryCancel();
  stream->Finish();
}

TEST(LinkServer, OneRouterTooManyIsTurnedAway) {
  Mailbox<LinkInput> worker;
  const auto server = Serve(&worker, "127.0.0.1:0");
  const auto stub = v1::WorkerLink::NewStub(
      grpc::CreateChannel(server->address(), grpc::InsecureChannelCredentials()));
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  using Stream = grpc::ClientReaderWriter<v1::RouterMessage, v1::WorkerMessage>;
  std::vector<std::unique_ptr<Stream>> streams;
  v1::RouterMessage hello;
  hello.mutable_hello()->set_protocol(kProtocol);
  v1::WorkerMessage answer;
  for (size_t i = 0; i <= kMaxRouters; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    streams.push_back(stub->Connect(contexts.back().get()));
    streams.back()->Write(hello);
    EXPECT_EQ(streams.back()->Read(&answer), i < kMaxRouters) << i;
  }
  EXPECT_EQ(streams.back()->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  streams.pop_back();
  for (const auto& context : contexts) context->TryCancel();
  for (const auto& stream : streams) stream->Finish();
}

TEST(LinkServer, ManyRoutersComeAndGoWhileTheWorkerSends) {
  Mailbox<LinkInput> worker;
  const auto server = Serve(&worker, "127.0.0.1:0");
  std::vector<std::thread> routers;
  for (int r = 0; r < 4; ++r) {
    routers.emplace_back([&] {
      for (int i = 0; i < 10; ++i) {
        Mailbox<ClientInput> inputs;
        const auto client = Connect(&inputs, server->address());
        ASSERT_TRUE(inputs.Next<WorkerConnected>());
        client->Send(Decode(1));
        ASSERT_TRUE(inputs.Next<std::vector<Event>>());
      }
    });
  }
  int opened = 0;
  int lost = 0;
  while (lost < 40) {
    const auto input = worker.Take();
    ASSERT_TRUE(input) << opened << " opened, " << lost << " lost";
    if (const auto* open = std::get_if<LinkOpened>(&*input)) {
      ++opened;
      for (int i = 0; i < 100; ++i) {
        server->Send(open->link, {FailedEvent{AttemptOf(1), absl::InternalError("x")}});
        server->SetStatus({.running = i});
      }
    }
    lost += std::holds_alternative<LinkLost>(*input);
  }
  EXPECT_EQ(opened, 40);
  for (std::thread& router : routers) router.join();
}

TEST(LinkServer, HealthAndReflectionAreServed) {
  Mailbox<LinkInput> worker;
  const auto server = Serve(&worker, "127.0.0.1:0");
  const auto channel = grpc::CreateChannel(server->address(), grpc::InsecureChannelCredentials());
  for (const char* method : {"/grpc.health.v1.Health/Check",
                             "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"}) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(20));
    const grpc::Slice empty;  // an empty message of any type
    const grpc::ByteBuffer request(&empty, 1);
    grpc::ByteBuffer answer;
    std::promise<grpc::Status> done;
    grpc::GenericStub(channel).UnaryCall(&context, method, grpc::StubOptions(), &request, &answer,
                                         [&](grpc::Status status) { done.set_value(status); });
    const grpc::Status status = done.get_future().get();
    EXPECT_NE(status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << method;
    EXPECT_NE(status.error_code(), grpc::StatusCode::UNAVAILABLE) << method;
  }
}

}  // namespace
}  // namespace baton::worker_link
