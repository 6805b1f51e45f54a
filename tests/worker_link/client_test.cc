// The router's end of the link, with the real server or another worker as its peer.

#include "worker_link/client.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <optional>

#include "baton/v1/worker.grpc.pb.h"
#include "tests/worker_link/link_testing.h"

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

// A worker of another release: it greets with another protocol.
class OldWorker final : public v1::WorkerLink::Service {
  grpc::Status Connect(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<v1::WorkerMessage, v1::RouterMessage>* stream) override {
    v1::WorkerMessage hello;
    hello.mutable_hello()->set_protocol(kProtocol + 1);
    stream->Write(hello);
    v1::RouterMessage message;
    while (stream->Read(&message)) {
    }
    return grpc::Status::OK;
  }
};

TEST(LinkClient, AWorkerOfAnotherProtocolIsLostWithTheReason) {
  OldWorker service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  Mailbox<ClientInput> router;
  auto client = Connect(&router, fmt::format("127.0.0.1:{}", port));
  const auto input = router.Take();
  ASSERT_TRUE(input);
  ASSERT_TRUE(std::holds_alternative<WorkerLost>(*input));
  EXPECT_EQ(std::get<WorkerLost>(*input).why.code(), absl::StatusCode::kFailedPrecondition);
  client.reset();
  server->Shutdown(std::chrono::system_clock::now());
}

}  // namespace
}  // namespace baton::worker_link
