// Package layotto is the messages of Layotto's contracts, as far as Loam speaks them: runtime, callback, lifecycle, and the
// extensions for objects, encryption and delayed messages. The others (email, sms, phone) are here as contracts alone.
package layotto

//go:generate go run -C ../../tools ./apigen -package layotto -utf8 -proto ../api/layotto/runtime.proto,../api/layotto/appcallback.proto,../api/layotto/lifecycle.proto,../api/layotto/s3.proto,../api/layotto/cryption.proto,../api/layotto/delay_queue.proto -go ../api/layotto/layotto.pb.go
