module github.com/iskorotkov/avro/v2

go 1.26.0
