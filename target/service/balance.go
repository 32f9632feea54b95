package service

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

// A picker picks one of the members it was made of. It is immutable, takes constant time, and allocates nothing.
type picker interface{ pick(choice) int }

// choice is what a pick goes by.
type choice struct {
	turn   uint64 // one more than the last one's of its shard
	random uint64
	key    uint64 // of the request; where it has none, random
	now    uint32 // a stamp
}

// one is the picker of a single member.
type one struct{}

func (one) pick(choice) int { return 0 }

// rotation is RoundRobin: a list in which every member stands as often as it weighs, spread evenly.
type rotation []uint16

// slotsMost bounds a rotation; weights are rounded to fit.
const slotsMost = 1 << 15

func newRotation(members []member) rotation {
	var sum float64
	least, unit := math.Inf(1), 0.0
	for i := range members {
		sum, least = sum+members[i].share, min(least, members[i].share)
		unit = divisor(unit, members[i].share)
	}
	scale := 4 / least // near enough while somebody starts slowly
	if unit == math.Trunc(unit) {
		scale = 1 / unit // exact
	}
	scale = min(scale, max(slotsMost, float64(len(members)))/sum)
	type slot struct {
		at float64 // 0 to 1
		i  int
	}
	var slots []slot
	for i := range members {
		n := max(1, int(math.Round(members[i].share*scale)))
		_, phase := math.Modf(float64(i) * math.Phi) // members of one weight do not stand in a bunch
		for k := range n {
			slots = append(slots, slot{(float64(k) + phase) / float64(n), i})
		}
	}
	slices.SortStableFunc(slots, func(a, b slot) int { return cmp.Compare(a.at, b.at) })
	r := make(rotation, len(slots))
	for i := range slots {
		r[i] = uint16(slots[i].i)
	}
	return r
}

// divisor is the greatest common one of whole numbers; of others it is none.
func divisor(a, b float64) float64 {
	if b != math.Trunc(b) || a != math.Trunc(a) {
		return 0.5
	}
	for b != 0 {
		a, b = b, math.Mod(a, b)
	}
	return a
}

func (r rotation) pick(c choice) int { return int(r[c.turn%uint64(len(r))]) }

// lottery is Random: it takes a member by its share, by Vose's alias method. Where all shares are equal it is only n.
type lottery struct {
	n     uint64
	alias []alias
}

// alias is a column of the method: below cut it is the column's own member, above it the other.
type alias struct {
	cut   uint64
	other int32
}

func newLottery(members []member) lottery {
	n := len(members)
	l := lottery{n: uint64(n)}
	var sum float64
	equal := true
	for i := range members {
		sum += members[i].share
		equal = equal && members[i].share == members[0].share
	}
	if equal {
		return l
	}
	l.alias = make([]alias, n)
	p := make([]float64, n)
	var small, large []int
	for i := range members {
		if p[i] = members[i].share * float64(n) / sum; p[i] < 1 {
			small = append(small, i)
		} else {
			large = append(large, i)
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, g := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		l.alias[s] = alias{uint64(p[s] * (1 << 63) * 2), int32(g)}
		if p[g] -= 1 - p[s]; p[g] < 1 {
			small, large = append(small, g), large[:len(large)-1]
		}
	}
	for _, i := range append(small, large...) { // 1, but for what floating point lost
		l.alias[i] = alias{math.MaxUint64, int32(i)}
	}
	return l
}

func (l lottery) pick(c choice) int { return l.draw(c.random) }

func (l lottery) draw(random uint64) int {
	column, rest := bits.Mul64(random, l.n)
	if len(l.alias) > 0 && rest >= l.alias[column].cut {
		return int(l.alias[column].other)
	}
	return int(column)
}

// two draws two members that differ, where there are two.
func (l lottery) two(random uint64) (i, j int) {
	i, j = l.draw(random), l.draw(mix(random+golden))
	if i == j {
		if j++; j == int(l.n) {
			j = 0
		}
	}
	return i, j
}

// leastRequest takes the one of two with less under way. A load counts by its share, and at equal load the first drawn
// wins, which is the heavier one as often as it is heavier.
type leastRequest struct {
	lottery
	members []member
}

func (l *leastRequest) pick(c choice) int {
	i, j := l.two(c.random)
	a, b := &l.members[i], &l.members[j]
	if float64(b.inFlight())*a.share < float64(a.inFlight())*b.share {
		return j
	}
	return i
}

// peakEWMA takes the one of two that would likely answer sooner.
type peakEWMA struct {
	lottery
	members []member
	decay   float32
}

func (l *peakEWMA) pick(c choice) int {
	i, j := l.two(c.random)
	if l.cost(j, c.now) < l.cost(i, c.now) {
		return j
	}
	return i
}

// unmeasured is the cost of one that has never answered and is asked already: one request finds out how it is.
const unmeasured = float64(1 << 50)

func (l *peakEWMA) cost(i int, now uint32) float64 {
	m := &l.members[i]
	busy, latency := float64(m.inFlight()), float64(m.latency.read(now, l.decay))
	if latency == 0 {
		return busy * unmeasured
	}
	return latency * (busy + 1) / m.share
}
