package resource

func decode(file string, data []byte) ([]*Object, []Problem) { return nil, nil }
