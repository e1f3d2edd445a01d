// The memory plan of an accelerator and its periodic schedule, found together by local search.
//
// A state is: for each switch (a tensor that may stay on chip, the weights of a layer that may be pinned) on or off; for
// each tensor the groups of URAM that a copy takes, the rest of it being in pages of BRAM; a cyclic order of the layers of
// each chunk; and for each layer the period (stage) of its batch in which it runs. A layer's cycles come from a table over
// its switches. Starts are the earliest that keep all difference constraints at the given
// interval,
//     start[b] >= start[a] + cycles[a] + (stage[b] - stage[a]) * interval      b next to a on their chunk
//     start[t] >= start[p] + cycles[p]                                         t reads what p writes
// and then each layer whose outputs are larger than its inputs moves as late as its neighbours allow. Whether there are such
// starts is found by pushing on those of the state before: that takes the layers that move, and not all of them as many times
// as there are layers. The cost is the peak of the pages in use over the period (nashc/hw/schedule.py:stock) with the
// pinned ones, and what is beyond the URAM, then their mean. At an interval, changes are made until the plan fits; a worse
// state is accepted below a threshold that falls to zero. From a plan that fits, the interval is tightened: where the orders
// need more, the one switch or the one layer from which on everything runs a period later is changed that makes them
// possible at the least cost. The search is deterministic. The caller prices and checks what comes out with the definitions
// in Python. Plain C interface, no Python, no state between calls.

#include <algorithm>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

using i64 = std::int64_t;

// Layers in topological order; lists of lists as offsets (count + 1) and values. Layer i has the switches
// switches[switches_at[i] ..]; bit j of an index into its table is its j-th switch. Switches 0 .. tensors-1 are tensors
// (`room`: pages of the `replicas` that are a copy, one for each chunk that reads it), the others weights (`room`: bits) of
// the chunk `owner`. A group of URAM is as large as `group_pages`.
struct Problem {
    i64 layers, chunks, tensors, switches, page_bits, uram_groups, group_pages;
    const i64 *chunk, *after_at, *after, *switches_at, *layer_switches, *table_at, *table;
    const i64 *room, *owner, *replicas, *writers_at, *writers, *readers_at, *readers;
};

namespace {

// Threshold of the first tries at an interval, in units of the first cost: of few tries, and of many.
constexpr double WARM = 0.005, HOT = 0.02;
// Steps of the interval, as shares of it: the first and the largest one down, that below which failures get more tries, the
// first one up; what a step grows by after a success. Tries at an interval: the fewest, many, and the most.
constexpr double STEP = 0.02, LARGEST = 0.08, FINE = 0.001, STRETCH = 0.05, GROWTH = 1.5;
constexpr i64 PATIENCE = 1000, LONG = 4 * PATIENCE, LONGEST = 64 * PATIENCE;

struct Random {  // xorshift64*
    std::uint64_t state;
    std::uint64_t next() {
        state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
        return state * 2685821657736338717ull;
    }
    i64 below(i64 n) { return i64((next() >> 33) % std::uint64_t(n)); }
};

struct State {
    std::vector<std::vector<int>> order;
    std::vector<i64> stage, cycles, groups;
    std::vector<char> on;
};

struct Cost {
    i64 peak;       // most pages, and groups beyond the URAM in pages
    bool fits;
    double excess;  // mean over the period of the pages beyond the room, in BRAM and in URAM
    double mean;    // mean of the pages in use
    double value() const { return excess + 0.02 * double(peak) + 0.001 * mean; }
};

struct Event {  // from `time` on, so many more
    i64 time, pages, groups;
};

struct Edge {
    int from, to;
    i64 lag;
};

class Search {
    const Problem& p;
    const i64 room;
    std::vector<std::vector<int>> follows, users;  // layers that wait for a layer; layers with a switch
    std::vector<int> next, previous, by_start, queue;
    std::vector<int> owed, turn, rank;  // broken constraints before a layer that are yet to be added; layers as they start
    std::vector<std::uint64_t> marked;  // a bit a layer that was pushed, in the order of `turn`
    std::vector<char> queued;
    std::vector<i64> lag, weight, pinned, known, pushed, early;
    std::vector<Edge> broken;
    std::vector<Event> events;
    std::vector<std::pair<i64, i64>> lives;  // begin and length of each tensor that is on
    i64 peak_at = 0;

  public:
    i64 interval = 1;
    std::vector<i64> starts;
    std::vector<int> hot;

    Search(const Problem& problem, i64 pages)
        : p(problem), room(pages), follows(p.layers), users(p.switches), next(p.layers), previous(p.layers),
          by_start(p.layers), queue(p.layers), owed(p.layers), turn(p.layers), rank(p.layers),
          marked((p.layers + 63) / 64), queued(p.layers), lag(p.layers), weight(p.layers),
          pinned(p.chunks), known(p.layers), lives(p.tensors), starts(p.layers) {
        for (i64 i = 0; i < p.layers; i++) {
            turn[i] = rank[i] = int(i);
            for (i64 j = p.after_at[i]; j < p.after_at[i + 1]; j++) follows[p.after[j]].push_back(int(i));
            for (i64 j = p.switches_at[i]; j < p.switches_at[i + 1]; j++) users[p.layer_switches[j]].push_back(int(i));
        }
    }

    void price(State& s, i64 layer) const {
        i64 index = 0;
        for (i64 j = p.switches_at[layer]; j < p.switches_at[layer + 1]; j++)
            index |= i64(s.on[p.layer_switches[j]]) << (j - p.switches_at[layer]);
        s.cycles[layer] = p.table[p.table_at[layer] + index];
    }

    // The earliest starts of a state; false if its orders need a longer interval: else they rise to an end.
    bool place(const State& s) {
        for (const auto& order : s.order) {  // a third of those that fail do so here
            i64 busy = 0;
            for (int t : order) busy += s.cycles[t];
            if (busy > interval) return false;
        }
        for (const auto& order : s.order)
            for (std::size_t i = 0; i < order.size(); i++) {
                const int a = order[i], b = order[(i + 1) % order.size()];
                next[a] = b, previous[b] = a;
                lag[a] = s.cycles[a] + (s.stage[b] - s.stage[a] - (i + 1 == order.size())) * interval;
            }
        if (!possible(s)) return false;
        hasten(s);
        return true;
    }

    // From starts that keep the constraints to the earliest ones. A layer has its own already where constraints that are
    // just kept lead to it from one that starts at 0; the others rise from 0 again.
    void hasten(const State& s) {
        starts = pushed;
        queue.clear();
        const auto reach = [&](int to, i64 least) {
            if (!queued[to] && starts[to] == least) queued[to] = 1, queue.push_back(to);
        };
        for (int t = 0; t < int(p.layers); t++) reach(t, 0);
        for (std::size_t at = 0; at < queue.size(); at++) {
            const int t = queue[at];
            for (int f : follows[t]) reach(f, starts[t] + s.cycles[t]);
            if (next[t] != t) reach(next[t], starts[t] + lag[t]);
        }
        queue.clear();
        for (int t : turn)
            if (!queued[t]) starts[t] = 0, queue.push_back(t);
        std::fill(queued.begin(), queued.end(), 0);
        for (bool changed = true; changed;) {
            changed = false;
            for (int t : queue) {
                i64 start = starts[t];
                for (i64 j = p.after_at[t]; j < p.after_at[t + 1]; j++)
                    start = std::max(start, starts[p.after[j]] + s.cycles[p.after[j]]);
                const int before = previous[t];
                if (before != t) start = std::max(start, starts[before] + lag[before]);
                if (start > starts[t]) starts[t] = start, changed = true;
            }
        }
        early = starts;
    }

    // The starts of the state that was evaluated last are those to begin with from now on.
    void keep(const State& s) {
        known = early;
        std::sort(turn.begin(), turn.end(), [&](int a, int b) { return known[a] < known[b]; });
        for (std::size_t i = 0; i < turn.size(); i++) rank[turn[i]] = int(i);
        find_hot(s);
    }

    // Whether the constraints can all be kept, exactly and from any known starts: those that these break are added one by
    // one, and each pushes layers on; they cannot where it pushes its own beginning.
    bool possible(const State& s) {
        pushed = known;
        broken.clear();
        const auto note = [&](int from, int to, i64 least) {
            if (pushed[from] + least > pushed[to]) broken.push_back({from, to, least}), owed[to]++;
        };
        for (int t = 0; t < int(p.layers); t++) {
            for (i64 j = p.after_at[t]; j < p.after_at[t + 1]; j++) note(int(p.after[j]), t, s.cycles[p.after[j]]);
            if (previous[t] != t) note(previous[t], t, lag[previous[t]]);
        }
        bool kept = true;
        for (std::size_t e = 0; e < broken.size(); e++) {
            owed[broken[e].to]--;
            kept = kept && push(s, e);
        }
        return kept;
    }

    // Layers are pushed in the order of their known starts, so that most move once.
    bool push(const State& s, std::size_t e) {
        const Edge& edge = broken[e];
        if (pushed[edge.from] + edge.lag <= pushed[edge.to]) return true;
        bool kept = true;
        std::size_t word = marked.size();
        const auto raise = [&](int from, int to, i64 start) {
            if (start <= pushed[to] || (owed[to] && not_yet(e, from, to))) return;
            if (to == edge.from) kept = false;
            pushed[to] = start;
            const std::size_t at = std::size_t(rank[to]) / 64;
            marked[at] |= 1ull << (rank[to] % 64);
            word = std::min(word, at);
        };
        raise(-1, edge.to, pushed[edge.from] + edge.lag);
        while (kept && word < marked.size()) {
            if (!marked[word]) {
                word++;
                continue;
            }
            const int t = turn[word * 64 + std::size_t(__builtin_ctzll(marked[word]))];
            marked[word] &= marked[word] - 1;
            for (int f : follows[t]) raise(t, f, pushed[t] + s.cycles[t]);
            if (next[t] != t) raise(t, next[t], pushed[t] + lag[t]);
        }
        if (!kept) std::fill(marked.begin(), marked.end(), 0);
        return kept;
    }

    bool not_yet(std::size_t e, int from, int to) const {
        for (std::size_t i = e + 1; i < broken.size(); i++)
            if (broken[i].from == from && broken[i].to == to) return true;
        return false;
    }

    // Layers that write more pages than they are among the readers of run late.
    void delay(const State& s) {
        std::fill(weight.begin(), weight.end(), 0);
        for (i64 m = 0; m < p.tensors; m++) {
            if (!s.on[m]) continue;
            for (i64 j = p.writers_at[m]; j < p.writers_at[m + 1]; j++) weight[p.writers[j]] += p.room[m];
            for (i64 j = p.readers_at[m]; j < p.readers_at[m + 1]; j++) weight[p.readers[j]] -= p.room[m];
        }
        for (i64 t = 0; t < p.layers; t++) by_start[t] = int(t);
        std::sort(by_start.begin(), by_start.end(), [&](int a, int b) { return starts[a] > starts[b]; });
        for (int t : by_start) {
            if (weight[t] <= 0 || follows[t].empty()) continue;
            i64 latest = INT64_MAX;
            for (int f : follows[t]) latest = std::min(latest, starts[f] - s.cycles[t]);
            if (next[t] != t) latest = std::min(latest, starts[next[t]] - lag[t]);
            starts[t] = std::max(starts[t], latest);
        }
    }

    Cost cost(const State& s) {
        events.clear();
        i64 pages_always = 0, groups_always = 0;
        double area = 0;
        for (i64 m = 0; m < p.tensors; m++) {
            if (!s.on[m]) continue;
            i64 begin = INT64_MAX, end = 0;
            for (i64 j = p.writers_at[m]; j < p.writers_at[m + 1]; j++) {
                const i64 w = p.writers[j];
                begin = std::min(begin, starts[w]), end = std::max(end, starts[w] + s.cycles[w]);
            }
            for (i64 j = p.readers_at[m]; j < p.readers_at[m + 1]; j++)
                end = std::max(end, starts[p.readers[j]] + s.cycles[p.readers[j]]);
            const i64 groups = p.replicas[m] * s.groups[m], pages = std::max<i64>(0, p.room[m] - groups * p.group_pages);
            const i64 life = end - begin, whole = life / interval, rest = life % interval;
            area += double(pages + groups * p.group_pages) * double(life);
            lives[m] = {begin, life};
            pages_always += whole * pages, groups_always += whole * groups;
            if (!rest) continue;
            const i64 at = begin % interval, until = at + rest;
            events.push_back({at, pages, groups});
            if (until > interval) pages_always += pages, groups_always += groups;
            if (until != interval) events.push_back({until % interval, -pages, -groups});
        }
        std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) { return a.time < b.time; });
        double excess = 0;
        // Most of what is in use from `level` on, and when; what is above `limit` is added to the excess.
        const auto most = [&](i64 level, i64 limit, i64 Event::*what, i64 unit) {
            std::pair<i64, i64> peak{level, 0};
            i64 since = 0;
            for (std::size_t e = 0; e < events.size(); e++) {
                if (level > limit) excess += double(level - limit) * double(unit * (events[e].time - since));
                since = events[e].time;
                level += events[e].*what;
                const bool last = e + 1 == events.size() || events[e + 1].time > since;
                if (last && level > peak.first) peak = {level, since};
            }
            if (level > limit) excess += double(level - limit) * double(unit * (interval - since));
            return peak;
        };
        std::pair<i64, i64> groups{0, 0};
        if (p.uram_groups) groups = most(groups_always, p.uram_groups, &Event::groups, p.group_pages);
        pin(s, p.uram_groups - groups.first);
        for (i64 bits : pinned)
            if (bits > 0) pages_always += (bits + p.page_bits - 1) / p.page_bits;
        const std::pair<i64, i64> pages = most(pages_always, room, &Event::pages, 1);
        const i64 beyond = std::max<i64>(0, groups.first - p.uram_groups);
        peak_at = beyond ? groups.second : pages.second;
        return {pages.first + beyond * p.group_pages, pages.first <= room && !beyond, excess / double(interval),
                area / double(interval)};
    }

    // Bits of pinned weights of each chunk that so many spare groups of URAM leave.
    void pin(const State& s, i64 spare) {
        std::fill(pinned.begin(), pinned.end(), 0);
        for (i64 w = p.tensors; w < p.switches; w++)
            if (s.on[w]) pinned[p.owner[w]] += p.room[w];
        for (; spare > 0; spare--) {
            auto most = std::max_element(pinned.begin(), pinned.end());
            if (*most <= 0) break;
            *most -= p.group_pages * p.page_bits;
        }
    }

    bool evaluate(const State& s, Cost& result) {
        if (!place(s)) return false;
        delay(s);
        result = cost(s);
        return true;
    }

    // Tensors that are on chip at the moment of the peak of the state that was evaluated last.
    void find_hot(const State& s) {
        hot.clear();
        for (i64 m = 0; m < p.tensors; m++)
            if (s.on[m] && ((peak_at - lives[m].first) % interval + interval) % interval < lives[m].second)
                hot.push_back(int(m));
    }

    void toggle(State& s, i64 at) const {
        s.on[at] = !s.on[at];
        for (int layer : users[at]) price(s, layer);
    }

    void change(State& s, Random& random) const {
        const i64 kind = random.below(p.uram_groups && p.tensors ? 15 : 12);
        if (kind >= 12) {  // another part of a tensor in URAM
            const i64 at = kind >= 13 && !hot.empty() ? hot[random.below(i64(hot.size()))] : random.below(p.tensors);
            const i64 whole = (p.room[at] / p.replicas[at] + p.group_pages - 1) / p.group_pages;
            s.groups[at] = random.below(1 + std::min(whole, p.uram_groups / p.replicas[at]));
            return;
        }
        if (kind >= 8 && p.switches) {
            const bool aimed = kind >= 10 && !hot.empty();
            const i64 at = aimed ? hot[random.below(i64(hot.size()))] : random.below(p.switches);
            toggle(s, at);
            return;
        }
        if (kind == 0) {  // everything from a task on, one period earlier or later
            const i64 from = random.below(p.layers), by = random.below(3) ? -1 : 1;
            for (i64 t = from; t < p.layers; t++) s.stage[t] += by;
            return;
        }
        auto& order = s.order[p.chunk[random.below(p.layers)]];  // busy chunks more often
        const i64 size = i64(order.size());
        if (size < 2) {
            s.stage[order[0]] += random.below(2) ? 1 : -1;
            return;
        }
        if (kind == 1) {  // one task into another period
            s.stage[order[random.below(size)]] += random.below(2) ? 1 : -1;
            return;
        }
        const i64 at = random.below(size), hops = kind < 6 ? 1 : 1 + random.below(size - 1);
        for (i64 i = at, h = 0; h < hops; h++, i = (i + 1) % size) {
            if (i + 1 == size) {  // rotate: the first task of the period is the last of the one before
                const int first = order[0];
                order.erase(order.begin());
                order.push_back(first);
                s.stage[first]--;
                std::swap(order[size - 2], order[size - 1]);
                i = size - 2;
            } else {
                std::swap(order[i], order[i + 1]);
            }
        }
    }
};

struct Plan {
    i64 interval;
    State state;
    std::vector<i64> starts;
};

// From a state to plans that fit, at ever shorter intervals.
class Descent {
    const Problem& p;
    const i64 tries;
    Search search;
    Random random;
    i64 spent = 0;
    State state, changed;
    Cost now{};

  public:
    Plan best{};  // interval 0: none

    Descent(const Problem& problem, i64 room, i64 changes, i64 seed)
        : p(problem), tries(changes), search(problem, room), random{std::uint64_t(seed) * 0x9E3779B97F4A7C15ull + 1} {}

    // False where the orders of the schedule are impossible below `ceiling`.
    bool start(const i64* on, const i64* groups, const i64* starts, i64 interval, i64 ceiling) {
        state.order.resize(p.chunks);
        state.stage.resize(p.layers);
        state.cycles.resize(p.layers);
        state.on.assign(on, on + p.switches);
        state.groups.assign(groups, groups + p.tensors);
        for (i64 i = 0; i < p.layers; i++) {
            state.order[p.chunk[i]].push_back(int(i)), state.stage[i] = starts[i] / interval;
            search.price(state, i);
        }
        for (auto& order : state.order)
            std::sort(order.begin(), order.end(), [&](int a, int b) {
                return std::make_pair(starts[a] % interval, a) < std::make_pair(starts[b] % interval, b);
            });
        i64 at = interval;
        while (!take(at))
            if ((at += i64(double(at) * STRETCH) + 1) >= ceiling) return false;
        return true;
    }

    // The least interval down to `floor`; a plan of `ceiling` or more is of no use.
    void run(i64 floor, i64 ceiling) {
        double step = STRETCH;
        for (i64 at = search.interval; !settle(LONG, false); step *= 2) {
            at += i64(double(at) * step) + 1;
            if (at >= ceiling || spent >= tries) return;
            take(at);
        }
        i64 patience = PATIENCE;
        if (best.interval > floor && repair(floor)) settle(patience, false);
        step = STEP;
        while (best.interval > floor && spent < tries) {
            const i64 shorter = std::min(best.interval - 1, i64(double(best.interval) * (1 - step)));
            back();
            const bool possible = repair(std::max(floor, shorter));
            if (possible && settle(patience, false)) {
                step = std::min(LARGEST, step * GROWTH);
                continue;
            }
            if (step < FINE) patience = std::min(2 * patience, LONGEST);
            step = std::max(step / 2, 0.5 / double(best.interval));
            if (!possible && step < FINE) back(), settle(patience, true);
        }
    }

  private:
    bool take(i64 interval) {
        search.interval = interval;
        if (!search.evaluate(state, now)) return false;
        search.keep(state);
        return true;
    }

    void back() { state = best.state, take(best.interval); }

    // Changes until the plan fits, or further on to the least memory that it takes at this interval.
    bool settle(i64 count, bool further) {
        bool fits = now.fits;
        if (fits) best = {search.interval, state, search.starts};
        Cost least = now;
        State nearest = state;
        const double warm = (count < LONG ? WARM : HOT) * now.value();
        for (i64 i = 0; i < count && (further || !fits); i++) {
            changed = state;
            search.change(changed, random);
            spent++;
            Cost cost{};
            if (!search.evaluate(changed, cost)) continue;
            const double threshold = warm * double(count - i) / double(count) * double(random.below(1000)) / 1000;
            if (cost.value() > now.value() + threshold && (fits || !cost.fits)) continue;
            std::swap(state, changed);
            now = cost;
            search.keep(state);
            if (cost.fits ? fits && cost.value() >= least.value() : fits || cost.value() >= least.value()) continue;
            least = cost, nearest = state;
            if ((fits = cost.fits)) best = {search.interval, state, search.starts};
        }
        if (!fits) state = nearest, take(search.interval);
        return fits;
    }

    // The state with the one change by which its orders are possible at an interval and that costs least.
    bool repair(i64 interval) {
        if (take(interval)) return true;
        State cheapest;
        Cost least{}, cost{};
        const auto offer = [&](const State& s) {
            spent++;
            if (search.evaluate(s, cost) && (cheapest.order.empty() || cost.value() < least.value())) least = cost, cheapest = s;
        };
        changed = state;
        for (i64 from = p.layers - 1; from > 0; from--) {
            changed.stage[from]++;
            offer(changed);
        }
        for (i64 at = 0; at < p.switches; at++) {
            changed = state;
            search.toggle(changed, at);
            offer(changed);
        }
        if (cheapest.order.empty()) return false;
        state = cheapest;
        return take(interval);
    }
};

}  // namespace

// The plan of least interval from `floor` to below `ceiling` that about `tries` changes find: at most `room` pages and the
// URAM. Starts from the switches `on`, the `groups` of each tensor and the orders of the schedule `starts` of interval `from`,
// which may be one of other cycles, and leaves its plan there. Returns its interval, 0 if no plan fits; -1 where these orders
// are impossible, -2 if out of memory.
EXPORT i64 nashc_plan(const Problem* problem, i64 floor, i64 ceiling, i64 from, i64 room, i64 tries, i64 seed, i64* on,
                      i64* groups, i64* starts) try {
    Descent descent(*problem, room, tries, seed);
    if (!descent.start(on, groups, starts, from, ceiling)) return -1;
    descent.run(floor, ceiling);
    const Plan& best = descent.best;
    if (!best.interval) return 0;
    std::copy(best.starts.begin(), best.starts.end(), starts);
    std::copy(best.state.on.begin(), best.state.on.end(), on);
    std::copy(best.state.groups.begin(), best.state.groups.end(), groups);
    return best.interval;
} catch (const std::bad_alloc&) {
    return -2;
}
