//! What every place for objects must do, in the same words.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use portico_objects::{Key, Object, ObjectError, Objects};

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).expect("a name")
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(len: usize) -> Bytes {
    (0..len as u64)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

pub(crate) async fn read(object: Object) -> Vec<u8> {
    let chunks: Vec<Bytes> = object.body.try_collect().await.expect("the body ends");
    chunks.concat()
}

pub(crate) async fn names(objects: &Objects, folder: Option<&str>) -> Vec<String> {
    let folder = folder.map(key);
    let page = objects
        .list(folder.as_ref(), None, 1000)
        .await
        .expect("lists");
    assert_eq!(page.next, None);
    page.items
        .into_iter()
        .map(|meta| meta.key.as_str().to_owned())
        .collect()
}

/// All of it, on an empty place.
pub(crate) async fn all(objects: &Objects) {
    stores_and_reads(objects).await;
    ranges(objects).await;
    replaces(objects).await;
    large_ones_in_chunks(objects).await;
    broken_ones_leave_nothing(objects).await;
    deletes(objects).await;
    lists_in_order_and_in_pages(objects).await;
    same_name_at_once(objects).await;
    refuses_what_no_store_takes(objects).await;
}

async fn stores_and_reads(objects: &Objects) {
    let name = key("a/hello.txt");
    let missing = objects.get(&name).await.unwrap_err();
    assert!(matches!(missing, ObjectError::NotFound), "{missing:?}");
    let missing = objects.head(&name).await.unwrap_err();
    assert!(matches!(missing, ObjectError::NotFound), "{missing:?}");

    let stored = objects
        .put_bytes(&name, "text/plain; charset=utf-8", "hello")
        .await
        .unwrap();
    assert_eq!(stored.size, 5);
    // SHA-256 of "hello".
    assert_eq!(
        hex::encode(stored.sha256),
        "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    );
    let object = objects.get(&name).await.unwrap();
    assert_eq!(object.content_type, "text/plain; charset=utf-8");
    assert_eq!((object.meta.size, object.range.clone()), (5, 0..5));
    assert_eq!(object.meta.key, name);
    assert_eq!(read(object).await, b"hello");
    let meta = objects.head(&name).await.unwrap();
    assert_eq!((meta.size, &meta.key), (5, &name));
    let age = chrono::Utc::now() - meta.modified;
    assert!(age.num_seconds().abs() < 600, "{age}");

    let empty = key("a/empty");
    let stored = objects
        .put_bytes(&empty, "application/octet-stream", Bytes::new())
        .await
        .unwrap();
    assert_eq!(stored.size, 0);
    let object = objects.get(&empty).await.unwrap();
    assert_eq!(object.content_type, "application/octet-stream");
    assert_eq!(read(object).await, b"");
}

async fn ranges(objects: &Objects) {
    let name = key("a/hello.txt");
    for (range, wanted) in [(0..1, "h"), (1..4, "ell"), (4..5, "o"), (2..900, "llo")] {
        let object = objects.get_range(&name, range).await.unwrap();
        assert_eq!(object.meta.size, 5);
        assert_eq!(object.range.end - object.range.start, wanted.len() as u64);
        assert_eq!(read(object).await, wanted.as_bytes());
    }
    for start in [5, 6, u64::MAX - 1] {
        let behind = objects.get_range(&name, start..u64::MAX).await.unwrap_err();
        assert!(matches!(behind, ObjectError::Range(5)), "{behind:?}");
    }
    let empty = objects.get_range(&key("a/empty"), 0..1).await.unwrap_err();
    assert!(matches!(empty, ObjectError::Range(0)), "{empty:?}");
    let none = objects.get_range(&name, 3..3).await.unwrap_err();
    assert!(matches!(none, ObjectError::Invalid(_)), "{none:?}");
    let missing = objects.get_range(&key("a/no"), 0..3).await.unwrap_err();
    assert!(matches!(missing, ObjectError::NotFound), "{missing:?}");
}

async fn replaces(objects: &Objects) {
    let name = key("a/replaced");
    objects
        .put_bytes(&name, "text/plain", "the first one")
        .await
        .unwrap();
    let before = objects.get(&name).await.unwrap();
    objects
        .put_bytes(&name, "application/json", "{}")
        .await
        .unwrap();
    let after = objects.get(&name).await.unwrap();
    assert_eq!(after.content_type, "application/json");
    assert_eq!(read(after).await, b"{}");
    drop(before);
    objects
        .put_bytes(&name, "application/octet-stream", "x")
        .await
        .unwrap();
    let after = objects.get(&name).await.unwrap();
    assert_eq!(after.content_type, "application/octet-stream");
    objects.delete(&name).await.unwrap();
}

/// More than two parts of a multipart upload, in chunks that fit no boundary.
async fn large_ones_in_chunks(objects: &Objects) {
    let content = pattern(33 * 1024 * 1024 + 17);
    let name = key("large/object.bin");
    let mut writer = objects.writer(&name, "video/mp4").await.unwrap();
    let mut rest = content.clone();
    while !rest.is_empty() {
        let chunk = rest.split_to(rest.len().min(777_777));
        writer.write(chunk).await.unwrap();
    }
    // It appears when it is whole.
    let early = objects.head(&name).await.unwrap_err();
    assert!(matches!(early, ObjectError::NotFound), "{early:?}");
    let stored = writer.finish().await.unwrap();
    assert_eq!(stored.size, content.len() as u64);
    let object = objects.get(&name).await.unwrap();
    assert_eq!(object.content_type, "video/mp4");
    let read_back = read(object).await;
    assert!(read_back == content, "the bytes differ");
    let across = 16 * 1024 * 1024 - 3..16 * 1024 * 1024 + 5;
    let object = objects.get_range(&name, across).await.unwrap();
    assert_eq!(
        read(object).await,
        content.slice(16 * 1024 * 1024 - 3..16 * 1024 * 1024 + 5)
    );
    // Exactly one part, and exactly two: no empty part follows.
    for parts in [1, 2] {
        let exact = key("large/exact");
        let content = pattern(parts * 16 * 1024 * 1024);
        let chunks = content.chunks(4 * 1024 * 1024).map(Bytes::copy_from_slice);
        let body = stream::iter(chunks.map(Ok::<_, std::io::Error>));
        let stored = objects.put(&exact, "video/mp4", body).await.unwrap();
        assert_eq!(stored.size, content.len() as u64);
        assert!(read(objects.get(&exact).await.unwrap()).await == content);
        objects.delete(&exact).await.unwrap();
    }
    objects.delete(&name).await.unwrap();
}

async fn broken_ones_leave_nothing(objects: &Objects) {
    let name = key("a/broken");
    for begun in ["some bytes", &"x".repeat(17 * 1024 * 1024)] {
        let chunks = [
            Ok(Bytes::copy_from_slice(begun.as_bytes())),
            Err(std::io::Error::other("the other side went away")),
        ];
        let failed = objects.put(&name, "text/plain", stream::iter(chunks)).await;
        assert!(matches!(failed, Err(ObjectError::Source(_))), "{failed:?}");
        let none = objects.head(&name).await.unwrap_err();
        assert!(matches!(none, ObjectError::NotFound), "{none:?}");
    }
    let mut writer = objects.writer(&name, "text/plain").await.unwrap();
    writer.write(Bytes::from_static(b"never")).await.unwrap();
    writer.abort().await;
    let mut writer = objects.writer(&name, "text/plain").await.unwrap();
    writer.write(Bytes::from_static(b"never")).await.unwrap();
    drop(writer);
    assert!(objects.head(&name).await.is_err());
    // An object that is there stays when its successor breaks off.
    objects.put_bytes(&name, "text/plain", "old").await.unwrap();
    let chunks = [
        Ok(Bytes::from_static(b"new")),
        Err(std::io::Error::other("x")),
    ];
    let failed = objects.put(&name, "text/html", stream::iter(chunks)).await;
    assert!(failed.is_err());
    let object = objects.get(&name).await.unwrap();
    assert_eq!(object.content_type, "text/plain");
    assert_eq!(read(object).await, b"old");
    objects.delete(&name).await.unwrap();
}

async fn deletes(objects: &Objects) {
    let name = key("a/hello.txt");
    objects.delete(&name).await.unwrap();
    objects.delete(&name).await.unwrap();
    assert!(matches!(
        objects.get(&name).await.unwrap_err(),
        ObjectError::NotFound
    ));
    // A folder is no object, and deleting its name leaves what lies in it.
    objects.delete(&key("a")).await.unwrap();
    assert!(matches!(
        objects.get(&key("a")).await.unwrap_err(),
        ObjectError::NotFound
    ));
    assert_eq!(names(objects, None).await, ["a/empty"]);
    objects.delete(&key("a/empty")).await.unwrap();
    assert_eq!(names(objects, None).await, [""; 0]);
}

async fn lists_in_order_and_in_pages(objects: &Objects) {
    // In the order of the bytes of the whole name: `-` and `.` come before `/`.
    let wanted = [
        "b-1",
        "b.txt",
        "b/0",
        "b/1/x",
        "b/1/y",
        "b/10",
        "b/2",
        "b0",
        "c/deep/er/est",
    ];
    for name in wanted.iter().rev() {
        objects
            .put_bytes(&key(name), "text/plain", *name)
            .await
            .unwrap();
    }
    assert_eq!(names(objects, None).await, wanted);
    assert_eq!(names(objects, Some("b")).await, wanted[2..7]);
    assert_eq!(names(objects, Some("b/1")).await, wanted[3..5]);
    assert_eq!(names(objects, Some("nothing")).await, [""; 0]);
    // A name is no folder.
    assert_eq!(names(objects, Some("b.txt")).await, [""; 0]);
    for limit in [1, 2, 4, 9, 10] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = objects.list(None, after.as_ref(), limit).await.unwrap();
            assert!(page.items.len() <= limit && !page.items.is_empty());
            seen.extend(page.items.iter().map(|meta| {
                assert_eq!(meta.size, meta.key.as_str().len() as u64);
                meta.key.as_str().to_owned()
            }));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, wanted, "in pages of {limit}");
    }
    // What a page ended with may be gone when the next one is asked for.
    let page = objects.list(Some(&key("b")), None, 2).await.unwrap();
    let after = page.next.unwrap();
    assert_eq!(after.as_str(), "b/1/x");
    objects.delete(&after).await.unwrap();
    let page = objects
        .list(Some(&key("b")), Some(&after), 2)
        .await
        .unwrap();
    let rest: Vec<_> = page.items.iter().map(|meta| meta.key.as_str()).collect();
    assert_eq!(rest, ["b/1/y", "b/10"]);
    for name in wanted {
        objects.delete(&key(name)).await.unwrap();
    }
    assert_eq!(names(objects, None).await, [""; 0]);
}

/// Whoever reads sees one of the writers' objects whole, never a mixture.
async fn same_name_at_once(objects: &Objects) {
    let name = key("race");
    let put = |letter: char| {
        let (objects, name) = (objects.clone(), name.clone());
        async move {
            let content = letter.to_string().repeat(300_000);
            let content_type = format!("text/{letter}");
            let body = stream::iter(
                content
                    .into_bytes()
                    .chunks(50_000)
                    .map(Bytes::copy_from_slice)
                    .collect::<Vec<_>>(),
            );
            let body = body.map(Ok::<_, std::io::Error>);
            objects.put(&name, &content_type, body).await.unwrap();
        }
    };
    put('a').await;
    let writers: Vec<_> = ('b'..='i')
        .map(|letter| tokio::spawn(put(letter)))
        .collect();
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (objects, name) = (objects.clone(), name.clone());
            tokio::spawn(async move {
                let object = objects.get(&name).await.unwrap();
                let content_type = object.content_type.clone();
                (content_type, read(object).await)
            })
        })
        .collect();
    for task in readers {
        let (content_type, content) = task.await.unwrap();
        assert_eq!(content.len(), 300_000);
        let letter = content[0];
        assert!(content.iter().all(|byte| *byte == letter));
        assert_eq!(content_type, format!("text/{}", char::from(letter)));
    }
    for task in writers {
        task.await.unwrap();
    }
    objects.delete(&name).await.unwrap();
    assert_eq!(names(objects, None).await, [""; 0]);
}

async fn refuses_what_no_store_takes(objects: &Objects) {
    for content_type in [
        "",
        "text",
        "text/plain\r\nx: y",
        "téxt/plain",
        &"a/".repeat(64),
    ] {
        let refused = objects.put_bytes(&key("x"), content_type, "x").await;
        assert!(
            matches!(refused, Err(ObjectError::Invalid(_))),
            "{content_type}"
        );
    }
    assert_eq!(names(objects, None).await, [""; 0]);
    assert_eq!(objects.trouble(), None);
}
