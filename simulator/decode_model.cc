#include "simulator/decode_model.h"

#include <algorithm>
#include <utility>

#include "router/placement.h"

namespace baton::simulator {

std::vector<int64_t> DecodeModel::Admit() {
  std::vector<int64_t> granted;
  while (!line_.empty()) {
    const DecodeJob job = line_.begin()->second;
    const auto wanted =
        static_cast<int32_t>(router::BlocksNeeded(worker_->block_tokens, job.tokens));
    const auto others = static_cast<int32_t>(running_.size() + receiving_.size());
    if (!decode_worker::MayJoin(wanted, free_blocks(), others)) break;
    line_.erase(line_.begin());
    held_blocks_ += wanted;
    const Running running{.job = job, .pending = job.tokens, .blocks = wanted};
    if (job.by_handoff) {
      receiving_.emplace(job.request, running);
      granted.push_back(job.request);
    } else {
      Join(running);
    }
  }
  return granted;
}

void DecodeModel::Join(const Running& running) {
  const auto younger = [&](const Running& other) { return other.job.ticket > running.job.ticket; };
  running_.insert(std::ranges::find_if(running_, younger), running);
}

bool DecodeModel::Receive(int64_t request, double first_token_s) {
  const auto found = receiving_.find(request);
  Running running = found->second;
  receiving_.erase(found);
  ++running.job.tokens;
  --running.job.left;
  running.job.last_token_s = first_token_s;
  running.pending = 1;
  running.decoding = true;
  if (running.job.left == 0) {
    held_blocks_ -= running.blocks;
    return true;
  }
  // A step that runs has its plan, which counts places in the list.
  running.served_step = steps_;
  if (stepping_) {
    joining_.push_back(running);
  } else {
    Join(running);
  }
  return false;
}

// A block for the next token. Those that give way, perhaps it itself, are marked.
void DecodeModel::ReserveOrPreempt(size_t index, std::vector<bool>* gone) {
  Running& running = running_[index];
  const auto wanted =
      static_cast<int32_t>(router::BlocksNeeded(worker_->block_tokens, running.job.tokens - 1));
  for (size_t victim = running_.size(); running.blocks < wanted && !(*gone)[index];) {
    if (free_blocks() > 0) {
      ++held_blocks_;
      ++running.blocks;
      continue;
    }
    do {
      --victim;
    } while ((*gone)[victim]);
    ++preemptions_;
    (*gone)[victim] = true;
    held_blocks_ -= running_[victim].blocks;
    DecodeJob job = running_[victim].job;
    job.by_handoff = false;
    line_.emplace(job.ticket, job);
  }
}

std::optional<double> DecodeModel::BeginStep() {
  if (stepping_ || running_.empty()) return std::nullopt;
  views_.clear();
  for (const Running& running : running_) {
    views_.push_back({.pending = running.pending,
                      .decoding = running.decoding,
                      .served_step = running.served_step});
  }
  plan_ = PlanBatch(views_, limits_);
  std::vector<bool> gone(running_.size(), false);
  for (const engine::PlannedRange& range : plan_) {
    const auto index = static_cast<size_t>(range.sequence);
    if (!gone[index] && running_[index].decoding) ReserveOrPreempt(index, &gone);
  }
  if (std::ranges::find(gone, true) != gone.end()) {
    std::vector<int32_t> place(running_.size());
    std::vector<Running> kept;
    for (size_t i = 0; i < running_.size(); ++i) {
      place[i] = static_cast<int32_t>(kept.size());
      if (!gone[i]) kept.push_back(running_[i]);
    }
    std::erase_if(plan_,
                  [&](const auto& range) { return gone[static_cast<size_t>(range.sequence)]; });
    for (engine::PlannedRange& range : plan_) {
      range.sequence = place[static_cast<size_t>(range.sequence)];
    }
    running_ = std::move(kept);
    if (plan_.empty()) return std::nullopt;
  }
  std::vector<planner::PromptRange> prompts;
  planner::StepLoad load;
  for (const engine::PlannedRange& range : plan_) {
    const Running& running = running_[static_cast<size_t>(range.sequence)];
    if (running.decoding) {
      load.batch += 1;
      load.context_tokens += running.job.tokens;
    } else {
      prompts.push_back(
          {.tokens = static_cast<double>(range.tokens),
           .before_tokens = static_cast<double>(running.job.tokens - running.pending)});
    }
  }
  load.prompts = prompts;
  const double seconds = worker_->step_s(load);
  stepping_ = true;
  busy_s_ += seconds;
  return seconds;
}

void DecodeModel::TakeToken(Running* running, double now_s, StepEnd* end) {
  DecodeJob& job = running->job;
  if (job.last_token_s < 0) {
    end->first_tokens.push_back(job.request);
  } else if (job.last_token_s == last_end_s_) {
    ++end->common_gaps;
  } else {
    end->other_gaps_s.push_back(now_s - job.last_token_s);
  }
  job.last_token_s = now_s;
  ++job.tokens;
  --job.left;
  running->pending = 1;
  running->decoding = true;
  if (job.left > 0) return;
  end->finished.push_back(job.request);
  held_blocks_ -= running->blocks;
}

DecodeModel::StepEnd DecodeModel::EndStep(double now_s) {
  StepEnd end;
  end.common_gap_s = now_s - last_end_s_;
  ++steps_;
  for (const engine::PlannedRange& range : plan_) {
    Running& running = running_[static_cast<size_t>(range.sequence)];
    running.served_step = steps_;
    running.pending -= range.tokens;
    if (running.pending > 0) continue;
    if (running.decoding) ++tokens_;
    TakeToken(&running, now_s, &end);
  }
  plan_.clear();
  std::erase_if(running_, [](const Running& running) { return running.job.left == 0; });
  for (const Running& running : joining_) Join(running);
  joining_.clear();
  stepping_ = false;
  last_end_s_ = now_s;
  return end;
}

std::vector<DecodeJob> DecodeModel::Decoding() const {
  std::vector<DecodeJob> jobs;
  for (const Running& running : running_) {
    if (running.decoding) jobs.push_back(running.job);
  }
  return jobs;
}

std::vector<DecodeJob> DecodeModel::TakeAway() {
  std::vector<DecodeJob> jobs;
  for (const Running& running : running_) {
    jobs.push_back(running.job);
    held_blocks_ -= running.blocks;
  }
  running_.clear();
  std::erase_if(line_, [&](const auto& entry) {
    if (!entry.second.by_handoff) jobs.push_back(entry.second);
    return !entry.second.by_handoff;
  });
  return jobs;
}

}  // namespace baton::simulator
