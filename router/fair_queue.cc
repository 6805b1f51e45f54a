#include "router/fair_queue.h"

#include <algorithm>

namespace baton::router {
namespace {

constexpr std::array<std::string_view, kPriorities> kNames = {"high", "normal", "low"};
constexpr std::array<int64_t, FairQueue::kLanes - 1> kLaneTokens = {1024, 4096, 16'384};

}  // namespace

std::string_view PriorityName(Priority priority) { return kNames[static_cast<size_t>(priority)]; }

std::optional<Priority> PriorityFromName(std::string_view name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) return std::nullopt;
  return static_cast<Priority>(found - kNames.begin());
}

size_t FairQueue::LaneOf(int64_t tokens) {
  const auto lane = std::lower_bound(kLaneTokens.begin(), kLaneTokens.end(), tokens);
  return static_cast<size_t>(lane - kLaneTokens.begin());
}

void FairQueue::Push(QueuedRequest request) {
  Class& to = classes_[static_cast<size_t>(request.priority)];
  auto [known, is_new] = to.by_name.try_emplace(request.tenant);
  if (is_new) {
    known->second = to.tenants.emplace(to.tenants.end());
    known->second->name = request.tenant;
  }
  const std::list<Tenant>::iterator tenant = known->second;
  const size_t lane = LaneOf(request.tokens);
  where_[request.handle] = {request.priority, tenant, lane, request.deadline};
  deadlines_.emplace(request.deadline, request.handle);
  tokens_ += request.tokens;
  ++tenant->count;
  ++to.count;
  tenant->lanes[lane].requests.push_back(std::move(request));
}

size_t FairQueue::BeforeInTenant(const Tenant* tenant, size_t lane) {
  if (tenant == nullptr) return 0;
  const size_t own = tenant->lanes[lane].requests.size();
  size_t before = own;
  for (size_t other = 0; other < kLanes; ++other) {
    if (other != lane) before += std::min(tenant->lanes[other].requests.size(), own + 1);
  }
  return before;
}

size_t FairQueue::Before(const QueuedRequest& request) const {
  const auto priority = static_cast<size_t>(request.priority);
  const Class& of = classes_[priority];
  const auto known = of.by_name.find(request.tenant);
  const Tenant* const own = known == of.by_name.end() ? nullptr : &*known->second;
  const size_t before_own = BeforeInTenant(own, LaneOf(request.tokens));
  size_t before = before_own;
  // Requests of a turn.
  const int64_t mean_tokens = empty() ? 1 : std::max<int64_t>(tokens_ / std::ssize(where_), 1);
  const auto turn = static_cast<size_t>(1 + kQuantumTokens / mean_tokens);
  for (const Tenant& tenant : of.tenants) {
    if (&tenant != own) before += std::min(tenant.count, before_own + turn);
  }
  for (size_t i = 0; i < kPriorities; ++i) {
    // Each of the lower ones takes a turn after so many of the higher ones.
    if (i < priority) before += classes_[i].count;
    if (i > priority) before += std::min(classes_[i].count, before / kLowerShare);
  }
  return before;
}

FairQueue::Class* FairQueue::ChooseClass() {
  const auto chosen = std::find_if(classes_.begin(), classes_.end(),
                                   [](const Class& one) { return one.count > 0; });
  if (chosen == classes_.end()) return nullptr;
  Class* starved = nullptr;
  for (auto lower = chosen + 1; lower != classes_.end(); ++lower) {
    if (lower->count > 0 && ++lower->passed_over >= kLowerShare) starved = &*lower;
  }
  Class* const turn = starved != nullptr ? starved : &*chosen;
  turn->passed_over = 0;
  return turn;
}

// The lane whose first request has been saved up for. It stays the chosen one until that is taken.
FairQueue::Lane& FairQueue::ChooseLane(Tenant& tenant) {
  while (true) {
    Lane& lane = tenant.lanes[tenant.next_lane];
    if (lane.requests.empty()) {
      lane.deficit = 0;
    } else if (lane.deficit >= lane.requests.front().tokens) {
      return lane;
    } else {
      lane.deficit += kQuantumTokens;
    }
    tenant.next_lane = (tenant.next_lane + 1) % kLanes;
  }
}

uint64_t FairQueue::PopFrom(Class& from) {
  while (true) {
    Tenant& tenant = from.tenants.front();
    Lane& lane = ChooseLane(tenant);
    const int64_t cost = lane.requests.front().tokens;
    if (tenant.deficit >= cost) {
      tenant.deficit -= cost;
      lane.deficit -= cost;
      return lane.requests.front().handle;
    }
    tenant.deficit += kQuantumTokens;
    from.tenants.splice(from.tenants.end(), from.tenants, from.tenants.begin());
  }
}

std::optional<uint64_t> FairQueue::Pop() {
  Class* const from = ChooseClass();
  if (from == nullptr) return std::nullopt;
  const uint64_t handle = PopFrom(*from);
  Remove(handle);
  return handle;
}

bool FairQueue::Remove(uint64_t handle) {
  const auto found = where_.find(handle);
  if (found == where_.end()) return false;
  const Place place = found->second;
  std::deque<QueuedRequest>& requests = place.tenant->lanes[place.lane].requests;
  const auto request =
      std::find_if(requests.begin(), requests.end(),
                   [handle](const QueuedRequest& one) { return one.handle == handle; });
  tokens_ -= request->tokens;
  requests.erase(request);
  deadlines_.erase({place.deadline, handle});
  where_.erase(found);
  Class& of = classes_[static_cast<size_t>(place.priority)];
  --of.count;
  if (--place.tenant->count == 0) {
    of.by_name.erase(place.tenant->name);
    of.tenants.erase(place.tenant);
  }
  return true;
}

std::vector<uint64_t> FairQueue::TakeExpired(TimePoint now) {
  std::vector<uint64_t> expired;
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    expired.push_back(deadlines_.begin()->second);
    Remove(expired.back());
  }
  return expired;
}

}  // namespace baton::router
