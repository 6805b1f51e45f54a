#include "worker_common/step_meter.h"

namespace baton::worker_common {

void StepMeter::Begin(std::span<const engine::StepRange> ranges) {
  bool prompts_alone = true;
  for (const engine::StepRange& range : ranges) {
    const double before = range.sequence->computed_tokens;
    const double tokens = range.tokens;
    if (range.sequence->decoding()) {
      prompts_alone = false;
      ++totals_.sequences;
      totals_.context_tokens += before + 1;
    } else {
      totals_.prompt_tokens += range.tokens;
      totals_.prompt_pairs += tokens * (before + (tokens + 1) / 2);
    }
  }
  if (prompts_alone) ++totals_.prompt_steps;
}

void StepMeter::End(Duration took) {
  ++totals_.steps;
  totals_.seconds += Seconds(took);
}

}  // namespace baton::worker_common
