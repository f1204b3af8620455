//! What a container asks the server of its network, and what servers of the world answer.
#![no_main]

use net::dns::{Answer, Code, Question};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match Question::read(bytes) {
        Ok(question) => {
            question.reverse();
            let answers = [Answer::Address([10, 0, 0, 2].into()), Answer::Name(question.name.clone())];
            let answer = question.answer(Code::Fine, &answers);
            assert!(answer.len() <= 512);
            assert!(question.is_answered_by(&answer, [bytes[0], bytes[1]]));
            assert!(Question::read(&answer).is_err(), "an answer is no question");
        }
        Err(wrong) => drop(wrong.answer()),
    }
});
