#include "bench/answer_reader.h"

#include <gtest/gtest.h>

#include <string>

namespace baton::bench {
namespace {

constexpr char kStream[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    "Transfer-Encoding: chunked\r\n\r\n";

std::string Chunk(const std::string& bytes) {
  char size[16];
  std::snprintf(size, sizeof(size), "%zx\r\n", bytes.size());
  return size + bytes + "\r\n";
}

std::string ChatEvent(const std::string& delta, const std::string& finish = "null") {
  return R"(data: {"id":"x","choices":[{"index":0,"delta":)" + delta + R"(,"finish_reason":)" +
         finish + "}]}\n\n";
}

std::string WholeStream() {
  return kStream + Chunk(ChatEvent(R"({"role":"assistant","content":""})")) +
         Chunk(ChatEvent(R"({"content":"Hi"})")) + Chunk(ChatEvent(R"({"content":" you"})")) +
         Chunk(ChatEvent("{}", "\"stop\"")) +
         Chunk(
             "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n\n"
             "data: [DONE]\n\n") +
         Chunk("").substr(0, 3) + "\r\n";
}

// Gives the bytes in pieces of `step`, as a connection would.
int32_t PushAll(const std::string& bytes, size_t step, AnswerReader* reader) {
  std::string waiting;
  int32_t pieces = 0;
  for (size_t at = 0; at < bytes.size(); at += step) {
    waiting += bytes.substr(at, step);
    const auto progress = reader->Push(waiting);
    EXPECT_TRUE(progress.ok()) << progress.status();
    if (!progress.ok()) return -1;
    pieces += progress->pieces;
    waiting.erase(0, progress->consumed);
  }
  EXPECT_EQ(waiting, "");
  return pieces;
}

TEST(AnswerReaderTest, AStreamCutAnywhereGivesTheSamePieces) {
  for (size_t step = 1; step < 200; ++step) {
    AnswerReader reader;
    ASSERT_EQ(PushAll(WholeStream(), step, &reader), 2) << step;
    EXPECT_TRUE(reader.complete());
    EXPECT_TRUE(reader.keep_alive());
    EXPECT_EQ(reader.facts().status, 200);
    EXPECT_TRUE(reader.facts().finished);
    EXPECT_EQ(reader.facts().prompt_tokens, 7);
    EXPECT_EQ(reader.facts().output_tokens, 3);
  }
}

TEST(AnswerReaderTest, SpacesLineEndsAndCommentsOfOtherServersAreTaken) {
  AnswerReader reader;
  const std::string bytes =
      std::string("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n") +
      ": ping\r\n\r\nevent: message\r\ndata:{\"choices\": [ {\"text\" : \"a\"} ]}\r\n\r\n" +
      "data: {\"choices\":\ndata: [{\"text\":\"b\", \"finish_reason\": \"length\"}]}\n\n";
  const auto progress = reader.Push(bytes);
  ASSERT_TRUE(progress.ok());
  EXPECT_EQ(progress->pieces, 2);
  EXPECT_TRUE(reader.facts().finished);
  EXPECT_FALSE(reader.complete());
  EXPECT_TRUE(reader.Close().ok());
  EXPECT_TRUE(reader.complete());
  EXPECT_FALSE(reader.keep_alive());
}

TEST(AnswerReaderTest, ReasoningAndToolCallsAreOutput) {
  AnswerReader reader;
  const auto progress =
      reader.Push(kStream + Chunk(ChatEvent(R"({"reasoning_content":"hm"})")) +
                  Chunk(ChatEvent(R"({"tool_calls":[{"index":0,"function":{"arguments":"{"}}]})")) +
                  Chunk(ChatEvent(R"({"content":null})")));
  ASSERT_TRUE(progress.ok());
  EXPECT_EQ(progress->pieces, 2);
}

TEST(AnswerReaderTest, AWholeAnswerHasItsCountsAndBody) {
  const std::string body = R"({"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],)"
                           R"("usage":{"prompt_tokens":5,"completion_tokens":1}})";
  AnswerReader reader;
  const auto progress =
      reader.Push("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " +
                  std::to_string(body.size()) + "\r\n\r\n" + body + "HTTP/1.1 200 OK");
  ASSERT_TRUE(progress.ok());
  EXPECT_EQ(progress->pieces, 1);
  EXPECT_TRUE(reader.complete());
  EXPECT_EQ(reader.body(), body);
  EXPECT_EQ(reader.facts().prompt_tokens, 5);
}

TEST(AnswerReaderTest, ErrorsKeepTheirText) {
  const std::string body = R"({"error":{"message":"too much","type":"x"}})";
  AnswerReader reader;
  ASSERT_TRUE(reader
                  .Push("HTTP/1.1 429 Too Many Requests\r\nContent-Length: " +
                        std::to_string(body.size()) + "\r\n\r\n" + body)
                  .ok());
  EXPECT_EQ(reader.facts().status, 429);
  EXPECT_EQ(reader.facts().error, "too much");

  AnswerReader stream;
  ASSERT_TRUE(stream.Push(kStream + Chunk("data: {\"error\":{\"message\":\"lost\"}}\n\n")).ok());
  EXPECT_EQ(stream.facts().error, "lost");

  AnswerReader text;
  ASSERT_TRUE(text.Push("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\noops").ok());
  EXPECT_EQ(text.facts().error, "oops");
}

TEST(AnswerReaderTest, AnEndTooEarlyAndNonsenseAreRefused) {
  AnswerReader cut;
  ASSERT_TRUE(cut.Push(kStream + Chunk(ChatEvent(R"({"content":"Hi"})"))).ok());
  EXPECT_FALSE(cut.Close().ok());
  AnswerReader nonsense;
  EXPECT_FALSE(nonsense.Push("SSH-2.0-OpenSSH_9.2\r\n\r\n").ok());
  AnswerReader huge_head;
  EXPECT_FALSE(huge_head.Push("HTTP/1.1 200 OK\r\nA: " + std::string(100000, 'x')).ok());
}

}  // namespace
}  // namespace baton::bench
