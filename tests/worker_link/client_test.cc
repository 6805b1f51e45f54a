// The router's end of the link, with the real server or another worker as its peer.

#include "worker_link/client.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "baton/v1/worker.grpc.pb.h"
#include "tests/worker_link/link_testing.h"
#include "worker_link/convert.h"

namespace baton::worker_link {
namespace {

TEST(LinkClient, AServerThatRestartsIsDialledAgain) {
  Mailbox<LinkInput> worker;
  Mailbox<ClientInput> router;
  auto server = Serve(&worker, "127.0.0.1:0");
  const std::string address = server->address();
  const auto client = Connect(&router, address);
  ASSERT_TRUE(router.Next<WorkerConnected>());
  server.reset();
  const auto lost = router.Next<WorkerLost>();
  ASSERT_TRUE(lost);
  EXPECT_NE(lost->why.ToString().find(address), std::string::npos) << lost->why;
  EXPECT_FALSE(client->Send(Decode(1))) << "nothing is sent while the stream is down";
  server = Serve(&worker, address);
  ASSERT_NE(server, nullptr);
  ASSERT_TRUE(router.Next<WorkerConnected>());
  ASSERT_TRUE(client->Send(Decode(2)));
  std::optional<LinkCommand> command = worker.Next<LinkCommand>();
  ASSERT_TRUE(command);
  EXPECT_EQ(std::get<DecodeCommand>(command->command).attempt, AttemptOf(2));
}

TEST(LinkClient, SaysWhyADialFails) {
  Mailbox<LinkInput> worker;
  const std::string address = Serve(&worker, "127.0.0.1:0")->address();  // nobody listens any more
  Mailbox<ClientInput> router;
  const auto client = Connect(&router, address);
  EXPECT_EQ(client->address(), address);
  const auto input = router.Take();
  ASSERT_TRUE(input);
  ASSERT_TRUE(std::holds_alternative<WorkerLost>(*input));
  EXPECT_EQ(std::get<WorkerLost>(*input).why.code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(client->Send(Decode(1)));
  const auto server = Serve(&worker, address);
  EXPECT_TRUE(router.Next<WorkerConnected>()) << "it goes on dialling";
}

// Sends what it is told to, and nothing else.
class ScriptedWorker final : public v1::WorkerLink::Service {
 public:
  explicit ScriptedWorker(std::vector<v1::WorkerMessage> script) : script_(std::move(script)) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    address_ = fmt::format("127.0.0.1:{}", port);
  }
  ~ScriptedWorker() override { server_->Shutdown(std::chrono::system_clock::now()); }
  const std::string& address() const { return address_; }

 private:
  grpc::Status Connect(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<v1::WorkerMessage, v1::RouterMessage>* stream) override {
    for (const v1::WorkerMessage& message : script_) stream->Write(message);
    v1::RouterMessage message;
    while (stream->Read(&message)) {
    }
    return grpc::Status::OK;
  }

  const std::vector<v1::WorkerMessage> script_;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

v1::WorkerMessage Hello(uint32_t protocol) {
  v1::WorkerMessage message;
  ToWire(Info(), message.mutable_hello());
  message.mutable_hello()->set_protocol(protocol);
  return message;
}

TEST(LinkClient, AWorkerOfAnotherProtocolIsLostWithTheReason) {
  ScriptedWorker worker({Hello(kProtocol + 1)});
  Mailbox<ClientInput> router;
  const auto client = Connect(&router, worker.address());
  const auto input = router.Take();
  ASSERT_TRUE(input);
  ASSERT_TRUE(std::holds_alternative<WorkerLost>(*input));
  EXPECT_EQ(std::get<WorkerLost>(*input).why.code(), absl::StatusCode::kFailedPrecondition);
}

TEST(LinkClient, AnUnsoundMessageCostsTheWorkerItsStream) {
  v1::WorkerMessage unsound;
  unsound.mutable_events()->add_tokens()->set_first_position(-1);
  const v1::WorkerMessage nothing;
  v1::WorkerMessage bad_status;
  bad_status.mutable_status()->set_running(-1);
  for (const v1::WorkerMessage& second : {unsound, nothing, bad_status, Hello(kProtocol)}) {
    ScriptedWorker worker({Hello(kProtocol), second});
    Mailbox<ClientInput> router;
    const auto client = Connect(&router, worker.address());
    ASSERT_TRUE(router.Next<WorkerConnected>());
    const auto lost = router.Take();
    ASSERT_TRUE(lost);
    ASSERT_TRUE(std::holds_alternative<WorkerLost>(*lost));
    EXPECT_EQ(std::get<WorkerLost>(*lost).why.code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace baton::worker_link
