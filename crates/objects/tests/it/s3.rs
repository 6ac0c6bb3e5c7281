//! Objects in a bucket of a real S3 server.

use bytes::Bytes;
use portico_base::Secret;
use portico_objects::testing::{BUCKET, S3Server};
use portico_objects::{Encryption, ObjectError, Objects, S3Options};
use portico_telemetry::metrics::Registry;

use crate::suite::{self, key, names, read};

fn open(options: &S3Options) -> Objects {
    Objects::s3(options, &Registry::default()).expect("opens")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_passes_the_suite() {
    let Some(server) = S3Server::start() else {
        return;
    };
    suite::all(&open(&server.options(""))).await;
    suite::all(&open(&server.options("portico/prod"))).await;
    // Every upload that was given up is gone from the bucket, but for the dropped writers, which had sent nothing.
    let uploads = server.ask("GET", &format!("/{BUCKET}?uploads"), "");
    assert!(!uploads.contains("<UploadId>"), "{uploads}");
}

#[tokio::test]
async fn a_prefix_hides_what_is_beside_it() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let inside = open(&server.options("mine"));
    let outside = open(&server.options(""));
    outside
        .put_bytes(&key("foreign"), "text/plain", "f")
        .await
        .unwrap();
    outside
        .put_bytes(&key("mine2/x"), "text/plain", "f")
        .await
        .unwrap();
    inside
        .put_bytes(&key("own"), "text/plain", "o")
        .await
        .unwrap();
    assert_eq!(names(&inside, None).await, ["own"]);
    assert_eq!(
        names(&outside, None).await,
        ["foreign", "mine/own", "mine2/x"]
    );
    assert!(inside.get(&key("foreign")).await.is_err());
    assert_eq!(
        read(outside.get(&key("mine/own")).await.unwrap()).await,
        b"o"
    );
}

#[tokio::test]
async fn encryption_is_asked_for() {
    let Some(server) = S3Server::start() else {
        return;
    };
    for (encryption, wanted) in [(Encryption::S3, "AES256"), (Encryption::Kms, "aws:kms")] {
        let options = S3Options {
            encryption,
            ..server.options("")
        };
        let objects = open(&options);
        objects
            .put_bytes(&key("e"), "text/plain", "x")
            .await
            .unwrap();
        let mut writer = objects.writer(&key("f"), "text/plain").await.unwrap();
        writer
            .write(suite::pattern(17 * 1024 * 1024))
            .await
            .unwrap();
        writer.finish().await.unwrap();
        for name in ["e", "f"] {
            let head = server
                .ask("HEAD", &format!("/{BUCKET}/{name}"), "")
                .to_lowercase();
            let line = format!("x-amz-server-side-encryption: {}", wanted.to_lowercase());
            assert!(head.contains(&line), "{head}");
        }
    }
}

#[tokio::test]
async fn wrong_credentials_are_told_apart_from_a_store_that_is_away() {
    // From the first request on, this one asks who is there.
    let strict = [("INITIAL_NO_AUTH_ACTION_COUNT", "0")];
    let Some(server) = S3Server::start_with(&strict) else {
        return;
    };
    let objects = open(&S3Options {
        credentials: Some((Secret::from("AKIDUNKNOWN"), Secret::from("no"))),
        ..server.options("")
    });
    let refused = objects
        .put_bytes(&key("a"), "text/plain", "x")
        .await
        .unwrap_err();
    assert!(matches!(refused, ObjectError::Refused(_)), "{refused:?}");
    assert_eq!(objects.trouble(), Some("the object store refuses access"));

    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let away = open(&S3Options {
        endpoint: Some(format!("http://127.0.0.1:{port}").parse().unwrap()),
        ..server.options("")
    });
    let error = away.get(&key("a")).await.unwrap_err();
    assert!(matches!(error, ObjectError::Unavailable(_)), "{error:?}");
    assert!(away.trouble().is_some());
    let text = format!("{error:?} {away:?}");
    assert!(
        !text.contains("AKIDTEST") && !text.contains("secret"),
        "{text}"
    );
}

#[tokio::test]
async fn a_bucket_that_is_missing_is_not_a_missing_object() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let objects = open(&S3Options {
        bucket: "no-such-bucket".to_owned(),
        ..server.options("")
    });
    let error = objects
        .put_bytes(&key("a"), "text/plain", Bytes::from_static(b"x"))
        .await
        .unwrap_err();
    assert!(matches!(error, ObjectError::Unavailable(_)), "{error:?}");
    let error = objects.get(&key("a")).await.unwrap_err();
    assert!(matches!(error, ObjectError::Unavailable(_)), "{error:?}");
}
