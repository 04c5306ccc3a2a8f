package broker

import (
	"math"
	"strconv"
)

// USD is an amount of money in billionths of a dollar, so that sums are exact. One
// token costs at least some tens of them. The zero value is nothing.
type USD int64

// Dollar is one dollar.
const Dollar USD = 1_000_000_000

// Dollars converts an amount in dollars: Dollars(2.5). What is no amount, or too
// large for one, becomes the nearest that is.
func Dollars(amount float64) USD {
	switch billionths := math.Round(amount * float64(Dollar)); {
	case math.IsNaN(billionths):
		return 0
	case billionths >= math.MaxInt64:
		return math.MaxInt64
	case billionths <= math.MinInt64:
		return math.MinInt64
	default:
		return USD(billionths)
	}
}

// Float returns the amount in dollars.
func (u USD) Float() float64 { return float64(u) / float64(Dollar) }

// String returns the amount with as many digits as it needs, two at least: $0.30, $0.00014.
func (u USD) String() string {
	sign := ""
	if u < 0 {
		sign = "-"
	}
	whole := u / Dollar
	rest := u % Dollar
	digits := strconv.FormatInt(int64(max(rest, -rest)+Dollar), 10)[1:]
	for len(digits) > 2 && digits[len(digits)-1] == '0' {
		digits = digits[:len(digits)-1]
	}
	return sign + "$" + strconv.FormatUint(uint64(max(whole, -whole)), 10) + "." + digits
}

// Usage is what requests have used. Token counts are the API's own, as its usage
// objects state them; see https://docs.anthropic.com/en/api/messages.
type Usage struct {
	// Requests is how many requests for a message are counted here: those that
	// reached the model's API. Counting tokens and listing models is free.
	Requests int64 `json:"requests"`
	// Input is the tokens of prompts that were neither written to nor read from
	// the cache.
	Input int64 `json:"input_tokens"`
	// Output is the tokens of answers, thinking included.
	Output int64 `json:"output_tokens"`
	// CacheWrite5m and CacheWrite1h are the tokens written to the cache for five
	// minutes and for an hour.
	CacheWrite5m int64 `json:"cache_write_5m_tokens"`
	CacheWrite1h int64 `json:"cache_write_1h_tokens"`
	// CacheRead is the tokens read from the cache.
	CacheRead int64 `json:"cache_read_tokens"`
	// WebSearches is how many searches the API made.
	WebSearches int64 `json:"web_searches"`
	// Cost is what all of it costs by the broker's [Price] table.
	Cost USD `json:"cost_usd_billionths"`
	// Estimated is how many of the requests are counted by an estimate in part or
	// whole, because their answer was cut before it stated its usage, or states none.
	Estimated int64 `json:"estimated"`
	// Assumed is how many of the requests are priced by [Options.UnknownPrice],
	// because no price of their model is known.
	Assumed int64 `json:"assumed"`
}

// Tokens returns the tokens of all kinds.
func (u Usage) Tokens() int64 { return u.Prompt() + u.Output }

// Prompt returns the tokens of prompts, whether cached or not.
func (u Usage) Prompt() int64 { return u.Input + u.CacheWrite5m + u.CacheWrite1h + u.CacheRead }

// Add returns the sum.
func (u Usage) Add(v Usage) Usage {
	return Usage{
		Requests: u.Requests + v.Requests, Input: u.Input + v.Input, Output: u.Output + v.Output,
		CacheWrite5m: u.CacheWrite5m + v.CacheWrite5m, CacheWrite1h: u.CacheWrite1h + v.CacheWrite1h,
		CacheRead: u.CacheRead + v.CacheRead, WebSearches: u.WebSearches + v.WebSearches,
		Cost: u.Cost + v.Cost, Estimated: u.Estimated + v.Estimated, Assumed: u.Assumed + v.Assumed,
	}
}

// Sub returns the difference.
func (u Usage) Sub(v Usage) Usage {
	return Usage{
		Requests: u.Requests - v.Requests, Input: u.Input - v.Input, Output: u.Output - v.Output,
		CacheWrite5m: u.CacheWrite5m - v.CacheWrite5m, CacheWrite1h: u.CacheWrite1h - v.CacheWrite1h,
		CacheRead: u.CacheRead - v.CacheRead, WebSearches: u.WebSearches - v.WebSearches,
		Cost: u.Cost - v.Cost, Estimated: u.Estimated - v.Estimated, Assumed: u.Assumed - v.Assumed,
	}
}
