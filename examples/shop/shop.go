// Package shop is the example that make run serves: see shop.yaml and README.md. Its parts are the packages below it.
package shop
