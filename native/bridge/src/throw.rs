//! How failures, JNI errors and panics become Java exceptions.

use std::any::Any;

use jni::errors::{Error, ErrorPolicy};
use jni::objects::{JString, JThrowable};
use jni::strings::JNIString;
use jni::{Env, JValue, jni_sig, jni_str};
use quorate_engine::{Code, Failure};

/// What can go wrong in a native.
#[derive(Debug)]
pub enum Fault {
    /// The engine, or the bridge, says no.
    Failure(Failure),
    /// A call into the JVM failed. When an exception is pending, that is what Java gets.
    Jvm(Error),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Fault {
        Fault::Failure(failure)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Jvm(error)
    }
}

/// Throws a `quorate.jni.QuorateException` for whatever went wrong; the native's own value is then the default one.
pub struct Throw;

impl<T: Default> ErrorPolicy<T, Fault> for Throw {
    type Captures<'local: 'native, 'native> = ();

    fn on_error<'local: 'native, 'native>(env: &mut Env<'local>, _: &mut (), fault: Fault) -> jni::errors::Result<T> {
        let failure = match fault {
            Fault::Failure(failure) => failure,
            Fault::Jvm(error) => Failure::internal(format!("A call into the JVM failed: {error}.")),
        };
        throw(env, &failure);
        Ok(T::default())
    }

    fn on_panic<'local: 'native, 'native>(
        env: &mut Env<'local>,
        _: &mut (),
        payload: Box<dyn Any + Send + 'static>,
    ) -> jni::errors::Result<T> {
        throw(
            env,
            &Failure::internal(format!("A defect in Quorate: the native code panicked: {}", panic_text(&*payload))),
        );
        // A payload may panic when it is dropped; this one never is.
        std::mem::forget(payload);
        Ok(T::default())
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "(no message)",
    }
}

/// Throws `failure`, unless an exception is pending already. When the exception cannot be built, a plain
/// RuntimeException with the same sentence takes its place; when that cannot either, the JVM's own error stays.
fn throw(env: &mut Env<'_>, failure: &Failure) {
    if env.exception_check() || throw_ours(env, failure).is_ok() || env.exception_check() {
        return;
    }
    let text = JNIString::new(format!("{} (code {})", failure.message, failure.code as u8));
    // Its result says only that an exception is pending now, as it should be.
    let _ = env.throw_new(jni_str!("java/lang/RuntimeException"), text);
}

fn throw_ours(env: &mut Env<'_>, failure: &Failure) -> Result<(), Error> {
    // Looked up each time: a reference that is kept would keep the class loader from being collected.
    let class = env.find_class(jni_str!("quorate/jni/QuorateException"))?;
    let message = JString::from_str(env, &failure.message)?;
    let code = i32::from(failure.code as u8);
    let arguments = [JValue::Int(code), JValue::Object(&message)];
    let exception = env.new_object(class, jni_sig!("(ILjava/lang/String;)V"), &arguments)?;
    let exception = env.cast_local::<JThrowable>(exception)?;
    match env.throw(exception) {
        // `throw` answers that an exception is pending: ours.
        Ok(()) | Err(Error::JavaException) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The failure for a value of Java's that is out of the range the engine knows.
pub fn out_of_range(what: &str, value: i64) -> Fault {
    Failure::new(Code::Invalid, format!("{what} is {value}, which is out of range.")).into()
}
