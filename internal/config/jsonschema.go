package config

import "encoding/json"

// Schema returns the JSON Schema (2020-12) of the configuration file. It knows the keys
// and the form of their values; what goes together only [Parse] knows.
func Schema() string {
	root := configurationObject.definition()
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "fairlead"
	root["$defs"] = map[string]any{
		"service": serviceObject.definition(), "defaults": defaultsObject.definition(), "server": serverObject.definition(),
		"sorry-server": sorryObject.definition(), "tunnel": tunnelObject.definition(), "persistence": persistenceObject.definition(),
		"mark": markObject.definition(), "local-address": localObject.definition(), "notify": notifyObject.definition(), "command": commandObject.definition(),
		"check": checkObject.definition(), "tls": tlsObject.definition(), "http": httpObject.definition(),
		"grpc": grpcObject.definition(), "dns": dnsObject.definition(), "smtp": smtpObject.definition(),
		"udp": udpObject.definition(), "script": scriptObject.definition(), "file": fileCheckObject.definition(),
	}
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(err) // of maps of strings and numbers
	}
	return string(text) + "\n"
}
