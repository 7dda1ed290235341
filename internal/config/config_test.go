package config

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestTry(t *testing.T) {
	f, err := Parse("web.yaml", []byte(`
services:
  - address: tcp:192.0.2.100:80
    scheduler: wlc
    servers:
      - 192.0.2.11
      - {address: 192.0.2.12, weight: 2}
    checks: [tcp, {type: http, http: {path: /x, status: [200, 300-302]}}]
`))
	fmt.Printf("%+v\n%v\n", f.Configuration, err)
	_, err = Parse("web.yaml", []byte(`
services:
  - adress: tcp:192.0.2.100:80
    shceduler: wlc
    servers:
      - [2001:db8::1]:80
`))
	fmt.Println(err)
	_, err = Parse("web.yaml", []byte(`
services:
  - address: tcp:192.0.2.100:80
    shceduler: wlc
    servers:
      - 192.0.2.300
      - address: 192.0.2.3
        wieght: 7
      - address: 192.0.2.3
        weight: -7
`))
	fmt.Println(err)
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "  - address: tcp:198.18.%d.%d:80\n    scheduler: wlc\n    servers:\n", i/250, i%250)
		for j := range 10 {
			fmt.Fprintf(&b, "      - {address: 198.19.%d.%d, weight: 2}\n", i/250, (i+j)%250+1)
		}
	}
	for range 3 {
		s := time.Now()
		src := &source{name: "x", text: b.String()}
		parseYAML(src)
		fmt.Println("yaml", time.Since(s))
		s = time.Now()
		_, err = Parse("x", []byte(b.String()))
		fmt.Println("all", err, time.Since(s))
	}
}
