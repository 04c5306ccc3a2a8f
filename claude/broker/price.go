package broker

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"strings"
)

// PricesAsOf is the day on which the built-in prices were read: off the catalogue
// that Claude Code 2.1.328 carries, compared with
// https://platform.claude.com/docs/en/about-claude/pricing. They are list prices
// of the model's own API; what another cloud or a contract charges goes into
// [Options.Prices].
const PricesAsOf = "2026-11-27"

// Price is what a model costs, in dollars for a million tokens.
type Price struct {
	Input        float64 // of prompts, uncached
	Output       float64
	CacheWrite5m float64
	CacheWrite1h float64
	CacheRead    float64
	// WebSearch is dollars for one search.
	WebSearch float64
	// Long, where set, is what a request costs whose prompt has more than LongAbove
	// tokens, cached ones included.
	Long      *Price
	LongAbove int64
	// Fast, where set, is what a request costs that the API served in its fast mode.
	Fast *Price
}

// webSearch is dollars for one search.
const webSearch = 0.01

// price is one with the usual rates of the cache's writes: 1.25 and 2 times the input's.
func price(input, output, cacheRead float64) Price {
	return Price{
		Input: input, Output: output, CacheWrite5m: input * 5 / 4, CacheWrite1h: input * 2, CacheRead: cacheRead,
		WebSearch: webSearch,
	}
}

func (p Price) fast(input, output, cacheRead float64) Price {
	fast := price(input, output, cacheRead)
	p.Fast = &fast
	return p
}

func (p Price) long(above int64, input, output, cacheRead float64) Price {
	long := price(input, output, cacheRead)
	p.Long, p.LongAbove = &long, above
	return p
}

// DefaultPrices returns the built-in prices by the models' names, without dates;
// see [PricesAsOf]. The map is the caller's.
func DefaultPrices() map[string]Price {
	return map[string]Price{
		"claude-3-haiku":    {Input: 0.25, Output: 1.25, CacheWrite5m: 0.30, CacheWrite1h: 0.50, CacheRead: 0.03, WebSearch: webSearch},
		"claude-3-5-haiku":  price(0.80, 4, 0.08),
		"claude-3-opus":     price(15, 75, 1.50),
		"claude-3-5-sonnet": price(3, 15, 0.30),
		"claude-3-7-sonnet": price(3, 15, 0.30),
		"claude-haiku-4-5":  price(1, 5, 0.10),
		"claude-haiku-5-5":  price(0.10, 0.50, 0.01).long(100_000, 0.50, 2.50, 0.05),
		"claude-sonnet-4":   price(3, 15, 0.30),
		"claude-sonnet-4-0": price(3, 15, 0.30),
		"claude-sonnet-4-5": price(3, 15, 0.30),
		"claude-sonnet-4-6": price(3, 15, 0.30),
		"claude-sonnet-5":   price(2, 10, 0.20),
		"claude-sonnet-5-5": price(2, 10, 0.10),
		"claude-opus-4":     price(15, 75, 1.50),
		"claude-opus-4-0":   price(15, 75, 1.50),
		"claude-opus-4-1":   price(15, 75, 1.50),
		"claude-opus-4-5":   price(5, 25, 0.50),
		"claude-opus-4-6":   price(5, 25, 0.50).fast(30, 150, 3),
		"claude-opus-4-7":   price(5, 25, 0.50).fast(30, 150, 3),
		"claude-opus-4-8":   price(5, 25, 0.50).fast(10, 50, 1),
		"claude-opus-5":     price(5, 25, 0.50).fast(10, 50, 1),
		"claude-opus-5-5":   price(4, 20, 0.20).fast(8, 40, 0.40),
		"claude-fable-5":    price(10, 50, 1),
		"claude-fable-5-1":  price(10, 50, 0.25),
		"claude-fable-5-2":  price(8, 40, 0.20).fast(16, 80, 0.40),
		"claude-mythos-5":   price(10, 50, 1),
		"claude-mythos-5-1": price(10, 50, 0.25),
		"claude-mythos-5-2": price(8, 40, 0.20).fast(16, 80, 0.40),
	}
}

// prices finds the price of a model.
type prices struct {
	table   map[string]Price
	unknown Price
}

func newPrices(more map[string]Price, unknown Price) (prices, error) {
	p := prices{table: DefaultPrices(), unknown: unknown}
	maps.Copy(p.table, more)
	for model, price := range p.table {
		if !price.sane() {
			return prices{}, fmt.Errorf("broker: the price of %q is not a price", model)
		}
	}
	if !unknown.sane() {
		return prices{}, errors.New("broker: Options.UnknownPrice is not a price")
	}
	if unknown == (Price{}) {
		for _, price := range p.table {
			p.unknown = p.unknown.dearer(price)
		}
	}
	return p, nil
}

func (p Price) sane() bool {
	for _, rate := range []float64{p.Input, p.Output, p.CacheWrite5m, p.CacheWrite1h, p.CacheRead, p.WebSearch} {
		if !(rate >= 0 && rate <= 1e6) { // also not a number
			return false
		}
	}
	return (p.Long == nil || p.Long.sane()) && (p.Fast == nil || p.Fast.sane())
}

// dearer has the higher of every rate.
func (p Price) dearer(q Price) Price {
	return Price{
		Input: max(p.Input, q.Input), Output: max(p.Output, q.Output), CacheWrite5m: max(p.CacheWrite5m, q.CacheWrite5m),
		CacheWrite1h: max(p.CacheWrite1h, q.CacheWrite1h), CacheRead: max(p.CacheRead, q.CacheRead), WebSearch: max(p.WebSearch, q.WebSearch),
	}
}

// version is what may follow a model's name: a date, a revision of another
// cloud's, or the size of its window.
var version = regexp.MustCompile(`^(([-@][0-9]{8})|-latest|@default)?(-v[0-9]+(:[0-9]+)?)?(\[1m\])?$`)

// of returns the price of a model by the name it has at its own API, at Bedrock
// (us.anthropic.NAME-DATE-v1:0) or at Vertex (NAME@DATE), and whether it is known.
func (p prices) of(model string) (Price, bool) {
	if price, ok := p.table[model]; ok {
		return price, true
	}
	name := strings.ToLower(model)
	if i := strings.Index(name, "claude-"); i > 0 && (name[i-1] == '.' || name[i-1] == '/') {
		name = name[i:]
	}
	best := ""
	for known := range p.table {
		if rest, ok := strings.CutPrefix(name, known); ok && len(known) > len(best) && version.MatchString(rest) {
			best = known
		}
	}
	if best == "" {
		return p.unknown, false
	}
	return p.table[best], true
}

// rates are what the API says about how a request was served.
type rates struct {
	fast bool
	us   bool // only in the US, for which the API charges a tenth more
}

const usOnly = 1.1

// cost is rounded up.
func (p Price) cost(u Usage, r rates) USD {
	switch {
	case r.fast && p.Fast != nil:
		return p.Fast.cost(u, rates{us: r.us})
	case p.Long != nil && u.Prompt() > p.LongAbove:
		return p.Long.cost(u, r)
	}
	const million = 1e6
	tokens := float64(u.Input)*p.Input + float64(u.Output)*p.Output + float64(u.CacheWrite5m)*p.CacheWrite5m +
		float64(u.CacheWrite1h)*p.CacheWrite1h + float64(u.CacheRead)*p.CacheRead
	if r.us {
		tokens *= usOnly
	}
	billionths := (tokens/million + float64(u.WebSearches)*p.WebSearch) * float64(Dollar)
	return USD(math.Ceil(billionths - 1e-3)) // not for what float64 adds
}
