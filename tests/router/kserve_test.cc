#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "inference/grpc_service.grpc.pb.h"
#include "router/grpc_server.h"
#include "router/kserve_convert.h"
#include "tests/router/scripted_dispatcher.h"

namespace baton::router {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using testing::HasSubstr;

void AddText(const char* name, const std::string& text, ModelInferRequest& request) {
  auto* const input = request.add_inputs();
  input->set_name(name);
  input->set_datatype("BYTES");
  input->add_shape(1);
  input->mutable_contents()->add_bytes_contents(text);
}

void AddBool(const char* name, bool value, ModelInferRequest& request) {
  auto* const input = request.add_inputs();
  input->set_name(name);
  input->set_datatype("BOOL");
  input->add_shape(1);
  input->mutable_contents()->add_bool_contents(value);
}

ModelInferRequest Ask(const std::string& parameters = "") {
  ModelInferRequest request;
  request.set_id("seven");
  AddText("text_input", "hi", request);
  if (!parameters.empty()) AddText("sampling_parameters", parameters, request);
  return request;
}

std::string Why(const ModelInferRequest& request) {
  const auto call = ToKserveCall(request, RequestLimits{});
  EXPECT_TRUE(absl::IsInvalidArgument(call.status())) << call.status();
  return std::string(call.status().message());
}

TEST(KserveConvertTest, SamplingParametersAreThoseOfCompletions) {
  const auto call = ToKserveCall(
      Ask(R"({"temperature": "0.25", "max_tokens": 9, "top_k": -1, "stop": "7", "seed": 3})"), {});
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(std::get<std::string>(call->input.prompt), "hi");
  EXPECT_EQ(call->input.sampling.temperature, 0.25f);
  EXPECT_EQ(call->input.sampling.max_tokens, 9);
  EXPECT_EQ(call->input.sampling.top_k, 0);
  EXPECT_EQ(call->input.sampling.seed, 3u);
  EXPECT_THAT(call->input.stop, testing::ElementsAre("7"));
  EXPECT_FALSE(call->stream);
  EXPECT_TRUE(call->repeat_prompt);
  EXPECT_EQ(ToKserveCall(Ask(), {})->input.sampling.max_tokens, 16);
}

TEST(KserveConvertTest, RawContentsAreRead) {
  ModelInferRequest request = Ask();
  AddBool("stream", true, request);
  for (auto& input : *request.mutable_inputs()) input.clear_contents();
  request.add_raw_input_contents(std::string("\x05\0\0\0hello", 9));
  request.add_raw_input_contents(std::string("\x01", 1));
  const auto call = ToKserveCall(request, {});
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(std::get<std::string>(call->input.prompt), "hello");
  EXPECT_TRUE(call->stream);
  EXPECT_FALSE(call->repeat_prompt);
  for (const std::string& raw : {std::string("\x06\0\0\0hello", 9), std::string("\x05\0", 2),
                                 std::string("\xff\xff\xff\xffhello", 9)}) {
    *request.mutable_raw_input_contents(0) = raw;
    EXPECT_THAT(Why(request), HasSubstr("are not one element"));
  }
  request.mutable_raw_input_contents()->RemoveLast();
  EXPECT_THAT(Why(request), HasSubstr("2 inputs, but 1 raw contents"));
}

TEST(KserveConvertTest, UnsoundRequestsAreRefused) {
  EXPECT_THAT(Why({}), HasSubstr("'text_input' is missing"));
  ModelInferRequest request = Ask();
  AddText("text_imput", "x", request);
  EXPECT_THAT(Why(request), HasSubstr("did you mean 'text_input'?"));
  request = Ask();
  AddText("stream", "x", request);
  EXPECT_THAT(Why(request), HasSubstr("has the type BYTES, but must be BOOL"));
  request = Ask();
  request.mutable_inputs(0)->add_shape(2);
  EXPECT_THAT(Why(request), HasSubstr("must have one element"));
  request = Ask();
  request.mutable_inputs(0)->clear_contents();
  EXPECT_THAT(Why(request), HasSubstr("bytes_contents"));
  EXPECT_THAT(Why(Ask("[]")), HasSubstr("not a JSON object"));
  EXPECT_THAT(Why(Ask(R"({"temprature": 1})")), HasSubstr("did you mean 'temperature'?"));
  EXPECT_THAT(Why(Ask(R"({"prompt": "x"})")), HasSubstr("must not have 'prompt'"));
  EXPECT_THAT(Why(Ask(R"({"n": 2})")), HasSubstr("'n' is 2"));
  request = Ask();
  AddBool("stream", true, request);
  AddBool("exclude_input_in_output", false, request);
  EXPECT_THAT(Why(request), HasSubstr("exclude_input_in_output"));
}

class KserveTest : public testing::Test {
 protected:
  void Serve(ScriptedDispatcher::Script script = ScriptedDispatcher::SayHello) {
    dispatcher_ = std::make_unique<ScriptedDispatcher>(std::move(script));
    GrpcOptions options;
    options.address = "127.0.0.1:0";
    auto server = GrpcServer::Create(options, dispatcher_.get());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = inference::GRPCInferenceService::NewStub(
        grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials()));
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  }

  std::unique_ptr<ScriptedDispatcher> dispatcher_;
  std::unique_ptr<GrpcServer> server_;
  std::unique_ptr<inference::GRPCInferenceService::Stub> stub_;
  grpc::ClientContext context_;
};

std::string TextOf(const ModelInferResponse& response) {
  return response.raw_output_contents(0).substr(4);
}

TEST_F(KserveTest, OneAnswerInOnePiece) {
  Serve();
  ModelInferRequest request = Ask();
  AddBool("return_finish_reason", true, request);
  AddBool("return_num_output_tokens", true, request);
  ModelInferResponse response;
  const grpc::Status status = stub_->ModelInfer(&context_, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.id(), "seven");
  EXPECT_EQ(response.model_name(), kTestModel);
  ASSERT_EQ(response.outputs_size(), 3);
  EXPECT_EQ(response.outputs(0).name(), "text_output");
  EXPECT_EQ(TextOf(response), "hiHello, world");
  EXPECT_EQ(response.raw_output_contents(1), std::string("\x04\0\0\0stop", 8));
  EXPECT_EQ(response.raw_output_contents(2), std::string("\x03\0\0\0", 4));
}

TEST_F(KserveTest, AStreamAnswersSeveralRequestsAndGoesOnAfterErrors) {
  Serve();
  auto stream = stub_->ModelStreamInfer(&context_);
  ModelInferRequest request = Ask();
  AddBool("stream", true, request);
  ASSERT_TRUE(stream->Write(request));
  inference::ModelStreamInferResponse message;
  std::string text;
  do {
    ASSERT_TRUE(stream->Read(&message));
    EXPECT_EQ(message.error_message(), "");
    text += TextOf(message.infer_response());
  } while (!message.infer_response().parameters().at("triton_final_response").bool_param());
  EXPECT_EQ(text, "Hello, world");
  request = Ask("{");
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_THAT(message.error_message(), HasSubstr("not a JSON object"));
  EXPECT_EQ(message.infer_response().id(), "seven");
  // Compiled on another thread.
  ASSERT_TRUE(stream->Write(Ask(R"j({"guided_regex":"(?=a)"})j")));
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_THAT(message.error_message(), HasSubstr("guided_regex"));
  ASSERT_TRUE(stream->Write(Ask(R"({"guided_regex":"a+"})")));
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(TextOf(message.infer_response()), "hiHello, world");
  ASSERT_TRUE(stream->Write(Ask()));
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(TextOf(message.infer_response()), "hiHello, world");
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&message));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(KserveTest, CancelledCallsCancelTheirRequests) {
  Serve([](const Submission&) {});  // says nothing
  auto stream = stub_->ModelStreamInfer(&context_);
  ASSERT_TRUE(stream->Write(Ask()));
  ASSERT_EQ(dispatcher_->WaitForInputs(1).size(), 1u);
  context_.TryCancel();
  EXPECT_TRUE(dispatcher_->WaitForCancel(1));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);

  grpc::ClientContext hasty;
  hasty.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  ModelInferResponse response;
  EXPECT_EQ(stub_->ModelInfer(&hasty, Ask(), &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(dispatcher_->WaitForCancel(2));
  EXPECT_GT(dispatcher_->WaitForInputs(2)[1].timeout, Duration::zero());
}

TEST_F(KserveTest, TellsWhatIsServed) {
  Serve();
  inference::ModelMetadataRequest request;
  request.set_name(kTestModel);
  inference::ModelMetadataResponse metadata;
  ASSERT_TRUE(stub_->ModelMetadata(&context_, request, &metadata).ok());
  EXPECT_EQ(metadata.inputs(0).name(), "text_input");
  EXPECT_EQ(metadata.outputs(0).name(), "text_output");
  const auto ready = [&](const char* name, const char* version) {
    grpc::ClientContext context;
    inference::ModelReadyRequest model;
    model.set_name(name);
    model.set_version(version);
    inference::ModelReadyResponse response;
    EXPECT_TRUE(stub_->ModelReady(&context, model, &response).ok());
    return response.ready();
  };
  EXPECT_TRUE(ready(kTestModel, ""));
  EXPECT_TRUE(ready(kTestModel, "1"));
  EXPECT_FALSE(ready(kTestModel, "2"));
  EXPECT_FALSE(ready("other", ""));
  dispatcher_->set_ready(false);
  EXPECT_FALSE(ready(kTestModel, ""));
  grpc::ClientContext context;
  request.set_name("other");
  EXPECT_EQ(stub_->ModelMetadata(&context, request, &metadata).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

}  // namespace
}  // namespace baton::router
