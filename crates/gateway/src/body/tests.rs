//! Bodies by themselves.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use proptest::prelude::*;

use super::{BodyError, Part, ReqBody, RespBody};

fn frames(pieces: Vec<&'static [u8]>) -> impl Body<Data = Bytes, Error = BodyError> {
    StreamBody::new(futures_util::stream::iter(
        pieces
            .into_iter()
            .map(|p| Ok(Frame::data(Bytes::from_static(p)))),
    ))
}

fn next(body: &mut ReqBody) -> Option<Result<Vec<u8>, BodyError>> {
    let mut cx = Context::from_waker(Waker::noop());
    match body.poll_part(&mut cx) {
        Poll::Ready(None) => None,
        Poll::Ready(Some(Ok(Part::Data(piece)))) => Some(Ok(piece.data().to_vec())),
        Poll::Ready(Some(Ok(Part::Trailers(_)))) => Some(Ok(b"trailers".to_vec())),
        Poll::Ready(Some(Err(e))) => Some(Err(e)),
        Poll::Pending => panic!("nothing here waits"),
    }
}

#[test]
fn sizes_are_known_where_they_can_be() {
    assert_eq!(ReqBody::empty().remaining(), Some(0));
    assert_eq!(
        ReqBody::from(Bytes::from_static(b"abc")).remaining(),
        Some(3)
    );
    assert_eq!(ReqBody::boxed(frames(vec![b"a"])).remaining(), None);
    assert!(RespBody::from("").is_end_stream());
    assert_eq!(RespBody::from("abc").size_hint().exact(), Some(3));
}

#[test]
fn a_limit_ends_the_body_with_an_error() {
    let mut body = ReqBody::boxed(frames(vec![b"12345", b"67890", b"x"]));
    body.set_limit(10);
    assert_eq!(next(&mut body).unwrap().unwrap(), b"12345");
    assert_eq!(next(&mut body).unwrap().unwrap(), b"67890");
    assert!(matches!(
        next(&mut body),
        Some(Err(BodyError::TooLarge { limit: 10 }))
    ));
    assert!(next(&mut body).is_none());
}

#[test]
fn a_replayed_body_is_the_held_part_and_the_rest() {
    let rest = ReqBody::from(Bytes::from_static(b"rest"));
    let mut body = ReqBody::replay(Bytes::from_static(b"held"), rest);
    assert_eq!(body.remaining(), Some(8));
    assert!(!body.is_end_stream());
    assert_eq!(next(&mut body).unwrap().unwrap(), b"held");
    assert_eq!(body.remaining(), Some(4));
    assert_eq!(next(&mut body).unwrap().unwrap(), b"rest");
    assert!(next(&mut body).is_none() && body.is_end_stream());
}

#[tokio::test]
async fn collecting_stops_at_its_limit() {
    let body = || RespBody::boxed(frames(vec![b"abc", b"def", b"ghi"]));
    assert_eq!(body().collect(9).await.unwrap(), "abcdefghi");
    assert!(matches!(
        body().collect(8).await,
        Err(BodyError::TooLarge { limit: 8 })
    ));
    assert_eq!(RespBody::empty().collect(0).await.unwrap(), "");
}

#[tokio::test]
async fn our_error_is_found_inside_others() {
    let broken = StreamBody::new(futures_util::stream::iter([Err::<Frame<Bytes>, _>(
        BodyError::TooSlow,
    )]));
    let error = axum::body::Body::new(broken).collect().await.unwrap_err();
    assert!(matches!(BodyError::find(&error), Some(BodyError::TooSlow)));
    let error = RespBody::boxed(StreamBody::new(futures_util::stream::iter([Err::<
        Frame<Bytes>,
        _,
    >(
        BodyError::TooSlow,
    )])));
    assert!(matches!(error.collect(1).await, Err(BodyError::TooSlow)));
}

#[tokio::test]
async fn a_pumped_body_passes_data_and_trailers_and_tells_a_lost_end() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x", "y".parse().unwrap());
    let whole = futures_util::stream::iter([
        Ok::<_, BodyError>(Frame::data(Bytes::from_static(b"abc"))),
        Ok(Frame::trailers(trailers)),
    ]);
    let (body, pump) = ReqBody::boxed(StreamBody::new(whole)).into_send();
    let (collected, ()) = tokio::join!(body.collect(), pump.unwrap());
    let collected = collected.unwrap();
    assert_eq!(collected.trailers().unwrap()["x"], "y");
    assert_eq!(collected.to_bytes(), "abc");

    let (mut body, pump) = ReqBody::boxed(frames(vec![b"abc"])).into_send();
    drop(pump);
    let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
    assert!(
        frame.unwrap().is_err(),
        "a pump that died is no end of the body"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_limit_lets_exactly_its_bytes_through(sizes in proptest::collection::vec(1usize..50, 0..10), limit in 0u64..300) {
        let pieces: Vec<_> = sizes.iter().map(|n| Ok::<_, BodyError>(Frame::data(Bytes::from(vec![0; *n])))).collect();
        let total: usize = sizes.iter().sum();
        let mut body = ReqBody::boxed(StreamBody::new(futures_util::stream::iter(pieces)));
        body.set_limit(limit);
        let mut got = 0;
        let failed = loop {
            match next(&mut body) {
                None => break false,
                Some(Ok(data)) => got += data.len() as u64,
                Some(Err(_)) => break true,
            }
        };
        prop_assert_eq!(failed, total as u64 > limit);
        prop_assert!(got <= limit);
    }
}
