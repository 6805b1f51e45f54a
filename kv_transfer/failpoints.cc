#include "kv_transfer/failpoints.h"

#include <array>

namespace baton::kv_transfer {
namespace {

constexpr auto kCanFail = Failpoint::CanFail::kYes;

// A kind of message: before and after it goes out, and when it comes.
struct MessagePoints {
  Failpoint before, after, on;
};

constinit MessagePoints offer_points = {Failpoint("source.before_offer", kCanFail),
                                        Failpoint("source.after_offer"),
                                        Failpoint("target.on_offer", kCanFail)};
constinit MessagePoints grant_points = {Failpoint("target.before_grant", kCanFail),
                                        Failpoint("target.after_grant"),
                                        Failpoint("source.on_grant", kCanFail)};
constinit MessagePoints ready_points = {Failpoint("source.before_ready", kCanFail),
                                        Failpoint("source.after_ready"),
                                        Failpoint("target.on_ready", kCanFail)};
constinit MessagePoints commit_points = {Failpoint("source.before_commit", kCanFail),
                                         Failpoint("source.after_commit"),
                                         Failpoint("target.on_commit", kCanFail)};
constinit MessagePoints pull_points = {Failpoint("target.before_pull", kCanFail),
                                       Failpoint("target.after_pull"),
                                       Failpoint("source.on_pull", kCanFail)};
constinit MessagePoints release_points = {Failpoint("target.before_release", kCanFail),
                                          Failpoint("target.after_release"),
                                          Failpoint("source.on_release", kCanFail)};

constinit Failpoint before_verify("target.before_verify");
constinit Failpoint after_verify("target.after_verify");
constinit Failpoint target_done("target.after_done");
constinit Failpoint before_data("source.before_data");
constinit Failpoint after_data("source.after_data");
constinit Failpoint source_done("source.after_done");

constexpr std::array<Failpoint*, 24> kAll = {
    &offer_points.before,  &offer_points.after,  &offer_points.on,     &grant_points.before,
    &grant_points.after,   &grant_points.on,     &ready_points.before, &ready_points.after,
    &ready_points.on,      &pull_points.before,  &pull_points.after,   &pull_points.on,
    &before_data,          &after_data,          &before_verify,       &after_verify,
    &commit_points.before, &commit_points.after, &commit_points.on,    &release_points.before,
    &release_points.after, &release_points.on,   &target_done,         &source_done};

// Null for signs of life and for Cancel: what they do, silence does too.
MessagePoints* PointsOf(const MessageBody& body) {
  if (std::holds_alternative<OfferMessage>(body)) return &offer_points;
  if (std::holds_alternative<GrantMessage>(body)) return &grant_points;
  if (std::holds_alternative<PullMessage>(body)) return &pull_points;
  if (std::holds_alternative<ReleaseMessage>(body)) return &release_points;
  if (const auto* announced = std::get_if<ReadyMessage>(&body)) {
    return announced->last ? &commit_points : &ready_points;
  }
  return nullptr;
}

}  // namespace

bool FailsBeforeSending(const MessageBody& body) {
  MessagePoints* const points = PointsOf(body);
  return points != nullptr && points->before.Fails();
}

void ReachAfterSending(const MessageBody& body) {
  if (MessagePoints* const points = PointsOf(body)) points->after.Reach();
}

bool FailsOnArrival(const MessageBody& body) {
  MessagePoints* const points = PointsOf(body);
  return points != nullptr && points->on.Fails();
}

void ReachBeforeVerify() { before_verify.Reach(); }
void ReachAfterVerify() { after_verify.Reach(); }
void ReachTargetDone() { target_done.Reach(); }
void ReachBeforeData() { before_data.Reach(); }
void ReachAfterData() { after_data.Reach(); }
void ReachSourceDone() { source_done.Reach(); }

std::span<Failpoint* const> HandoffFailpoints() { return kAll; }

}  // namespace baton::kv_transfer
