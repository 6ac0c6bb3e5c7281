vcl 4.1;

# Varnish as a cache for the suite, with its built-in rules.
backend default {
    .host = "127.0.0.1";
    .port = "@ORIGIN@";
}

sub vcl_backend_response {
    set beresp.grace = 0s;
    set beresp.keep = 1h;
}
