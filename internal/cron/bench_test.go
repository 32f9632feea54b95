package cron

import (
	"testing"
	"time"
)

func BenchmarkNext(b *testing.B) {
	for _, text := range []string{"* * * * * *", "0 0 0 29 2 *", "0 0 0 30 2 *", "59 59 23 31 12 *", "TZ=Asia/Tokyo 0 0 0 30 2 *"} {
		s, err := Parse(text)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(text, func(b *testing.B) {
			at := time.Unix(1_800_000_000, 0)
			for b.Loop() {
				s.Next(at)
			}
		})
	}
	b.Run("Parse", func(b *testing.B) {
		for b.Loop() {
			_, _ = Parse("TZ=Nowhere/City * * * * *")
		}
	})
}
