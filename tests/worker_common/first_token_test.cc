#include "worker_common/first_token.h"

#include <gtest/gtest.h>

namespace baton::worker_common {
namespace {

TEST(FirstToken, KeepsTokenAndLogprobs) {
  const OutputToken sent{
      .token = 7, .position = 0, .logprob = -0.25f, .top = {{7, -0.25f}, {3, -2}}};
  const auto got = DecodeFirstToken(EncodeFirstToken(sent), 10);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->token, 7);
  EXPECT_EQ(got->position, 0);
  EXPECT_EQ(got->logprob, -0.25f);
  ASSERT_EQ(got->top.size(), 2u);
  EXPECT_EQ(got->top[1].token, 3);
  EXPECT_EQ(got->top[1].logprob, -2);
  EXPECT_TRUE(DecodeFirstToken(EncodeFirstToken({.token = 9}), 10)->top.empty());
}

TEST(FirstToken, RefusesWhatIsUnsound) {
  const std::string sound = EncodeFirstToken({.token = 9});
  EXPECT_FALSE(DecodeFirstToken("", 10).ok());
  EXPECT_FALSE(DecodeFirstToken(sound.substr(1), 10).ok());
  EXPECT_FALSE(DecodeFirstToken(sound + "x", 10).ok());
  EXPECT_FALSE(DecodeFirstToken(sound, 9).ok()) << "token outside the vocabulary";
  EXPECT_FALSE(DecodeFirstToken(EncodeFirstToken({.token = -1}), 10).ok());
  std::string many;
  for (int i = 0; i < 22; ++i) many += sound;
  EXPECT_FALSE(DecodeFirstToken(many, 10).ok());
}

}  // namespace
}  // namespace baton::worker_common
