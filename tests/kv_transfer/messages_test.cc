#include "kv_transfer/messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "kv_transfer/byte_codec.h"
#include "kv_transfer/peer_address.h"

namespace baton::kv_transfer {
namespace {

using ::testing::HasSubstr;

Message Around(MessageBody body) {
  return {.sender = 0x1111222233334444,
          .receiver = 0x5555666677778888,
          .attempt = {{0xAAAA, 0xBBBB}, 7},
          .body = std::move(body)};
}

std::vector<Message> OneOfEach() {
  BlockHash hash;
  hash.fill(0x5A);
  return {
      Around(OfferMessage{.tokens = 33,
                          .block_count = 3,
                          .slices = 5,
                          .lease_ms = 5'000,
                          .block_hashes = {hash, hash},
                          .source_name = "prefill-0",
                          .source_address = "where it is"}),
      Around(GrantMessage{.first_block_wanted = 2, .heartbeat_ms = 250}),
      Around(ReadyMessage{.pieces = {{2, 9, 0xDEADBEEF}, {7, 4, 0xFEEDFACE}},
                          .last = true,
                          .commit_payload = "first token"}),
      Around(PullMessage{.runs = {{0, 1}, {5, 3}}, .way = DataWay::kLane}),
      Around(SourceHeartbeat{.pieces_announced = 3, .committed = true}),
      Around(TargetHeartbeat{}),
      Around(ReleaseMessage{absl::DataLossError("block 3 of 7")}),
      Around(CancelMessage{absl::CancelledError("the client went away")}),
      Around(ProbeMessage{.runs = 11, .run_bytes = 368'640, .way = DataWay::kLane}),
  };
}

// With a checksum that is right, so that what Decode thinks of the rest is seen.
std::string Reseal(std::string bytes) {
  bytes.resize(bytes.size() - sizeof(uint64_t));
  ByteWriter out;
  out.PutRaw(bytes);
  return std::move(out).Seal();
}

TEST(MessagesTest, EveryKindComesBackAsItWas) {
  ASSERT_EQ(OneOfEach().size(), std::variant_size_v<MessageBody>);
  for (const Message& message : OneOfEach()) {
    const auto decoded = Decode(AsBytes(Encode(message)));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(*decoded, message) << "type " << message.body.index();
  }
}

TEST(MessagesTest, CutAnywhereIsRefused) {
  for (const Message& message : OneOfEach()) {
    const std::string bytes = Encode(message);
    for (size_t length = 0; length < bytes.size(); ++length) {
      EXPECT_FALSE(Decode(AsBytes(bytes.substr(0, length))).ok()) << length;
      // Also where the sender sealed the shorter message.
      if (length >= sizeof(uint64_t) && length < bytes.size() - sizeof(uint64_t)) {
        const std::string cut = Reseal(bytes.substr(0, length + sizeof(uint64_t)));
        EXPECT_FALSE(Decode(AsBytes(cut)).ok()) << length;
      }
    }
  }
}

TEST(MessagesTest, BytesLeftOverAreRefused) {
  for (const Message& message : OneOfEach()) {
    std::string longer = Encode(message);
    longer.insert(longer.size() - sizeof(uint64_t), 1, '\0');
    EXPECT_FALSE(Decode(AsBytes(Reseal(longer))).ok());
  }
}

TEST(MessagesTest, AFlippedBitIsRefusedAndNeverTrusted) {
  for (const Message& message : OneOfEach()) {
    const std::string bytes = Encode(message);
    for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      std::string flipped = bytes;
      flipped[bit / 8] ^= static_cast<char>(1 << (bit % 8));
      EXPECT_FALSE(Decode(AsBytes(flipped)).ok()) << "bit " << bit;
      // Sealed by a sender that says such things: taken or refused, but within the bounds.
      const auto decoded = Decode(AsBytes(Reseal(flipped)));
      if (!decoded.ok()) continue;
      if (const auto* offer = std::get_if<OfferMessage>(&decoded->body)) {
        EXPECT_GE(offer->tokens, 1);
        EXPECT_LE(offer->block_count, kMaxBlocksPerTransfer);
        EXPECT_GE(offer->slices, 1);
        EXPECT_LE(offer->slices, kMaxSlices);
        EXPECT_LE(offer->block_hashes.size(), static_cast<size_t>(offer->block_count));
      }
      if (const auto* pull = std::get_if<PullMessage>(&decoded->body)) {
        for (const PieceRun& run : pull->runs) {
          EXPECT_GE(run.first, 0);
          EXPECT_GE(run.count, 1);
          EXPECT_LE(run.first + run.count, 2 * kMaxPiecesPerTransfer);
        }
      }
      if (const auto* ready = std::get_if<ReadyMessage>(&decoded->body)) {
        for (const ReadyPiece& piece : ready->pieces) {
          EXPECT_GE(piece.index, 0);
          EXPECT_LT(piece.index, kMaxPiecesPerTransfer);
          EXPECT_GE(piece.source_piece, 0);
        }
      }
      if (const auto* probe = std::get_if<ProbeMessage>(&decoded->body)) {
        EXPECT_GE(probe->runs, 1);
        EXPECT_GE(probe->run_bytes, 1);
        EXPECT_LE(int64_t{probe->runs} * probe->run_bytes, kMaxProbeBytes);
      }
    }
  }
}

TEST(MessagesTest, RandomBytesAreRefusedOrWithinBounds) {
  const uint32_t seed = 4711;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const std::vector<Message> messages = OneOfEach();
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = Encode(messages[random() % messages.size()]);
    for (uint32_t changes = 1 + random() % 8; changes > 0; --changes) {
      // Past the envelope, mostly into counts and lengths.
      const size_t envelope = 42;
      const size_t at = envelope + random() % (bytes.size() - envelope);
      bytes[at] = static_cast<char>(random());
    }
    const auto decoded = Decode(AsBytes(Reseal(bytes)));
    // What is taken is canonical but for flags and status codes: it encodes to as many bytes.
    if (decoded.ok()) {
      EXPECT_EQ(Encode(*decoded).size(), bytes.size());
    }
  }
}

TEST(MessagesTest, AnotherVersionIsNamed) {
  std::string bytes = Encode(OneOfEach()[1]);
  bytes[4] = 9;
  EXPECT_THAT(Decode(AsBytes(Reseal(bytes))).status().ToString(), HasSubstr("version 9"));
}

TEST(MessagesTest, ALongReasonIsCut) {
  const auto decoded = Decode(
      AsBytes(Encode(Around(ReleaseMessage{absl::InternalError(std::string(50'000, 'w'))}))));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(std::get<ReleaseMessage>(decoded->body).status.message().size(), kMaxWhyBytes);
}

TEST(MessagesTest, TheLargestOfferAndReadyFit) {
  OfferMessage offer{.tokens = 16 * kMaxBlocksPerTransfer,
                     .block_count = kMaxBlocksPerTransfer,
                     .slices = kMaxSlices,
                     .lease_ms = 1,
                     .block_hashes = std::vector<BlockHash>(kMaxBlocksPerTransfer),
                     .source_name = std::string(kMaxNameBytes, 'n'),
                     .source_address = std::string(kMaxAddressBytes, 'a')};
  ReadyMessage ready{.pieces = std::vector<ReadyPiece>(kMaxReadyPieces),
                     .last = true,
                     .commit_payload = std::string(kMaxCommitPayloadBytes, 'p')};
  for (const Message& message : {Around(offer), Around(ready)}) {
    const std::string bytes = Encode(message);
    EXPECT_LE(bytes.size(), kMaxMessageBytes);
    EXPECT_TRUE(Decode(AsBytes(bytes)).ok());
  }
  EXPECT_THAT(Decode(AsBytes(std::string(kMaxMessageBytes + 1, 'x'))).status().ToString(),
              HasSubstr("at most"));
}

TEST(MessagesTest, DataHeaderComesBackAndDamageIsRefused) {
  const DataHeader header{
      .sender = 1, .receiver = 2, .attempt = {{3, 4}, 5}, .run = {.first = 6, .count = 7}};
  const std::string bytes = EncodeDataHeader(header);
  const auto decoded = DecodeDataHeader(AsBytes(bytes));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(*decoded, header);
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(DecodeDataHeader(AsBytes(bytes.substr(0, length))).ok());
  }
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] ^= static_cast<char>(1 << (bit % 8));
    EXPECT_FALSE(DecodeDataHeader(AsBytes(flipped)).ok());
  }
  EXPECT_FALSE(DecodeDataHeader(AsBytes(Encode(OneOfEach()[1]))).ok());
  EXPECT_FALSE(Decode(AsBytes(bytes)).ok());
}

}  // namespace
}  // namespace baton::kv_transfer
